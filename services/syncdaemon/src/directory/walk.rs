//! The walk through the replay directory: every directory that is entered, and what is in it.
//!
//! Holds one directory open at a time and no list of files, so a tree of a million costs no memory.

use crate::{
    directory::{DIRECTORY, Kind, Parent, Root, join, kind_of},
    names,
};
use rustix::fs::{Mode, RawDir, openat};
use std::{ffi::CStr, io, mem::MaybeUninit, ops::ControlFlow, os::fd::AsFd};

/// Directory entries read at once.
const ENTRIES_BYTES: usize = 32 << 10;

/// The receiver of what a walk meets.
pub trait Visit {
    /// A directory, before it is read.
    fn enter(&mut self, _dir: &[u8]) {}
    /// A regular file that may be taken.
    fn file(&mut self, parent: &Parent<'_>, dir: &[u8], part: &CStr) -> ControlFlow<()>;
    /// A name that is not taken: hidden, unfinished, or of no regular file.
    fn left_alone(&mut self, _parent: &Parent<'_>, _part: &CStr) {}
    /// A directory that was read to its end, and had so many entries.
    fn read(&mut self, _parent: &Parent<'_>, _dir: &[u8], _entries: u64) {}
}

/// How a walk went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Directories that could not be read to their end.
    pub unread: u64,
    /// It was ended early.
    pub broken_off: bool,
}

/// Walks every directory that is entered, `priority/` first.
/// Directories that vanish or cannot be read on the way are left out and counted.
///
/// # Errors
/// The root itself cannot be read.
pub fn walk(root: &Root, below: &[u8], visit: &mut impl Visit) -> io::Result<Walked> {
    let mut walked = Walked::default();
    let mut stack: Vec<Box<[u8]>> = vec![below.into()];
    if below.is_empty() {
        stack.push(names::PRIORITY_DIR.as_bytes().into());
    }
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); ENTRIES_BYTES];
    while let Some(name) = stack.pop() {
        visit.enter(&name);
        let dir = match root.parent(&name).and_then(|p| Ok(openat(&p, ".", DIRECTORY, Mode::empty())?)) {
            Ok(dir) => Parent::Below(dir),
            Err(e) if name.is_empty() => return Err(e),
            Err(_) => {
                walked.unread += 1;
                continue;
            }
        };
        let (mut entries, mut count, mut whole) = (RawDir::new(dir.as_fd(), &mut buffer), 0, true);
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else {
                (walked.unread, whole) = (walked.unread + 1, false);
                break;
            };
            let part = entry.file_name();
            if matches!(part.to_bytes(), b"." | b"..") {
                continue;
            }
            count += 1;
            match kind_of(&dir, part, entry.file_type()) {
                Kind::Directory => {
                    let sub = join(&name, part.to_bytes());
                    let comes_first = name.is_empty() && &*sub == names::PRIORITY_DIR.as_bytes();
                    let is_ours = name.is_empty() && names::is_ours(&sub);
                    match names::is_entered(&sub) {
                        true if !comes_first => stack.push(sub),
                        false if !is_ours => visit.left_alone(&dir, part),
                        _ => {}
                    }
                }
                Kind::File if !names::is_left_alone(part.to_bytes()) => {
                    if visit.file(&dir, &name, part).is_break() {
                        walked.broken_off = true;
                        return Ok(walked);
                    }
                }
                Kind::File | Kind::Other => visit.left_alone(&dir, part),
            }
        }
        if whole {
            visit.read(&dir, &name, count);
        }
    }
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[derive(Default)]
    struct Names {
        files: Vec<String>,
        left: Vec<String>,
        empty: Vec<String>,
    }

    impl Visit for Names {
        fn file(&mut self, _: &Parent<'_>, dir: &[u8], part: &CStr) -> ControlFlow<()> {
            self.files.push(names::encode(&join(dir, part.to_bytes())));
            ControlFlow::Continue(())
        }
        fn left_alone(&mut self, _: &Parent<'_>, part: &CStr) {
            self.left.push(names::encode(part.to_bytes()));
        }
        fn read(&mut self, _: &Parent<'_>, dir: &[u8], entries: u64) {
            if entries == 0 {
                self.empty.push(names::encode(dir));
            }
        }
    }

    #[test]
    fn a_walk_finds_files_alone_and_priority_first() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), true).unwrap();
        for sub in ["b/c", "b/empty", ".hidden", "quarantine", "x.tmp"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        for file in
            ["a", "b/c/d e", "priority/p", ".sent/s", "quarantine/q", "x.tmp/y", ".hidden/h", "n.part", "b/quarantine"]
        {
            fs::write(dir.path().join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("dirlink")).unwrap();
        let mut found = Names::default();
        walk(&root, b"", &mut found).unwrap();
        assert_eq!(found.files[0], "priority/p");
        found.files.sort();
        found.left.sort();
        assert_eq!(found.files, ["a", "b/c/d%20e", "b/quarantine", "priority/p"]);
        assert_eq!(found.left, [".hidden", "dirlink", "link", "n.part", "x.tmp"]);
        assert_eq!(found.empty, ["b/empty"]);
        assert!(root.parent(b"dirlink").is_err());
    }
}

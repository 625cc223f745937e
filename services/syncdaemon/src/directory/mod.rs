//! The replay directory on disk: opened once, walked, and changed only through its own descriptor.
//!
//! No symlink is followed anywhere below it, regardless of what a writer swaps in between: every part of a path is
//! opened on its own. Nothing is ever overwritten. Relies on one file system for the whole tree, so that a
//! rename is atomic; mounts below it are not entered.

pub mod lease;
pub mod separation;
pub mod stamp;
pub mod walk;

use crate::{directory::stamp::Stamp, names};
use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, Stat, flock, fstat, fsync, linkat,
        mkdirat, openat, openat2, renameat, renameat_with, statat, unlinkat,
    },
    io::Errno,
};
use std::{
    ffi::CStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Without blocking, because a fifo may have taken the name in between.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// Names that are tried for a file whose own name is taken again.
const NAMES_TRIED: u32 = 1000;

/// The replay directory with its `.sent` inside.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
    sent: OwnedFd,
    dev: u64,
    ino: u64,
    /// The kernel knows here who has a file open for writing.
    reports_writers: bool,
}

/// A directory below the root: the root itself, or one that was opened for this.
#[derive(Debug)]
pub enum Parent<'a> {
    /// The replay directory itself.
    Root(BorrowedFd<'a>),
    /// A directory inside.
    Below(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file with bytes.
    File,
    /// A directory, with names of its own.
    Directory,
    /// Anything else: never touched.
    Other,
}

impl Root {
    /// Opens the directory and makes what it needs inside. It may not exist: with `create` it is made then.
    ///
    /// # Errors
    /// It is missing or cannot be used, or another process uses it.
    pub fn open(path: &Path, create: bool) -> io::Result<Self> {
        if create {
            std::fs::create_dir_all(path)?;
        }
        // The configured path may be a symlink; what is below it may not.
        let fd = openat(rustix::fs::CWD, path, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?;
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another process uses this directory")),
            locked => locked?,
        }
        // Producers write into one of them; no one else needs what was sent.
        for (name, mode) in [(names::SENT_DIR, 0o700), (names::PRIORITY_DIR, 0o775)] {
            match mkdirat(&fd, name, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => {}
                made => made?,
            }
        }
        let sent = openat(&fd, names::SENT_DIR, DIRECTORY, Mode::empty())?;
        let stat = fstat(&fd)?;
        let reports_writers = lease::reports_writers_of(&fd);
        Ok(Self { path: path.to_owned(), dev: stat.st_dev, ino: stat.st_ino, fd, sent, reports_writers })
    }

    /// Whether [`lease::writers`] may be asked about files here.
    pub const fn reports_writers(&self) -> bool {
        self.reports_writers
    }

    /// Whether files may be moved out of a directory.
    pub fn lets_remove(parent: &Parent<'_>) -> bool {
        rustix::fs::accessat(parent, ".", rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The absolute path of a name.
    pub fn path_of(&self, name: &[u8]) -> PathBuf {
        match name {
            [] => self.path.clone(),
            name => self.path.join(std::ffi::OsStr::from_bytes(name)),
        }
    }

    /// Whether the path still leads here, and `.sent` is still inside.
    ///
    /// # Errors
    /// It does not, or nothing can be made in it.
    pub fn check(&self) -> io::Result<()> {
        let same = |found: &Stat, dev, ino| (found.st_dev, found.st_ino) == (dev, ino);
        let here = statat(rustix::fs::CWD, &self.path, AtFlags::empty())?;
        let sent = fstat(&self.sent)?;
        let inside = statat(&self.fd, names::SENT_DIR, AtFlags::SYMLINK_NOFOLLOW)?;
        if !same(&here, self.dev, self.ino) || !same(&inside, sent.st_dev, sent.st_ino) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it was replaced by another directory"));
        }
        rustix::fs::accessat(&self.fd, ".", rustix::fs::Access::WRITE_OK, AtFlags::EACCESS)?;
        Ok(())
    }

    /// Opens a directory by its name below the root; empty is the root.
    ///
    /// # Errors
    /// A part is missing, no directory, a symlink, or on another file system.
    pub fn parent(&self, name: &[u8]) -> io::Result<Parent<'_>> {
        let mut at = Parent::Root(self.fd.as_fd());
        for part in name.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            at = Parent::Below(enter(&at, part)?);
        }
        if let Parent::Below(fd) = &at
            && fstat(fd)?.st_dev != self.dev
        {
            return Err(io::Error::new(io::ErrorKind::CrossesDevices, "another file system is mounted here"));
        }
        Ok(at)
    }

    /// What is at a name, not following a symlink.
    ///
    /// # Errors
    /// It is gone, or its directory cannot be entered.
    pub fn stat(&self, name: &[u8]) -> io::Result<(Kind, Stamp)> {
        let (dir, last) = names::split(name);
        stat_in(&self.parent(dir)?, last)
    }

    /// The directory of files that were sent and not unlinked yet.
    pub fn sent(&self) -> BorrowedFd<'_> {
        self.sent.as_fd()
    }

    /// Moves what is at `from` in a directory to `name`, or to a name like it when that is taken or its
    /// directory is gone. Gives the name that it has now.
    ///
    /// # Errors
    /// It could not be moved anywhere.
    pub fn put(&self, from_dir: impl AsFd, from: &[u8], name: &[u8]) -> io::Result<Vec<u8>> {
        let (dir, last) = names::split(name);
        if let Ok(parent) = self.parent(dir)
            && move_new(&from_dir, from, &parent, last).is_ok()
        {
            return Ok(name.to_vec());
        }
        for n in 1..=NAMES_TRIED {
            let mut other = format!("again-{n}-").into_bytes();
            other.extend(&last[last.len().saturating_sub(200)..]);
            match move_new(&from_dir, from, &self.fd, &other) {
                Err(Errno::EXIST) => {}
                moved => return moved.map(|()| other).map_err(io::Error::from),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "every name for it is taken"))
    }

    /// Moves a file to `quarantine/`, under its own name, or below a numbered directory when that is taken.
    ///
    /// # Errors
    /// It is gone or could not be moved; it stays where it is then.
    pub fn quarantine(&self, name: &[u8]) -> io::Result<()> {
        let (dir, last) = names::split(name);
        let from = self.parent(dir)?;
        for n in 0..NAMES_TRIED {
            let mut to = Parent::Below(make_dir(&self.fd, names::QUARANTINE_DIR.as_bytes())?);
            let again = if n == 0 { String::new() } else { format!("again-{n}") };
            for part in [again.as_bytes()].into_iter().chain(dir.split(|b| *b == b'/')).filter(|p| !p.is_empty()) {
                to = Parent::Below(make_dir(&to, part)?);
            }
            match move_new(&from, last, &to, last) {
                Err(Errno::EXIST) => {}
                moved => {
                    moved?;
                    fsync(&to)?;
                    return Ok(fsync(&from)?);
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "every name for it is taken"))
    }

    /// Removes a directory that is empty.
    ///
    /// # Errors
    /// It is not, or cannot be removed.
    pub fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        let (dir, last) = names::split(name);
        Ok(unlinkat(self.parent(dir)?, last, AtFlags::REMOVEDIR)?)
    }
}

/// A name of a directory's entry.
pub fn join(dir: &[u8], part: &[u8]) -> Box<[u8]> {
    match dir {
        [] => part.into(),
        dir => [dir, b"/", part].concat().into(),
    }
}

/// Opens a file of a directory to read it.
///
/// # Errors
/// It is gone, or cannot be read, or is a symlink.
pub fn open_in(dir: impl AsFd, part: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(dir, part, FILE, Mode::empty())?)
}

/// What is at a name in a directory.
///
/// # Errors
/// It is gone.
pub fn stat_in(dir: impl AsFd, part: impl rustix::path::Arg) -> io::Result<(Kind, Stamp)> {
    let stat = statat(dir, part, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((kind(FileType::from_raw_mode(stat.st_mode)), stamp(&stat)))
}

/// The stamp of an open file; an error when it is not a regular file.
///
/// # Errors
/// The system's, or that it is not a file.
pub fn stamp_of(file: impl AsFd) -> io::Result<Stamp> {
    let stat = fstat(file)?;
    match kind(FileType::from_raw_mode(stat.st_mode)) {
        Kind::File => Ok(stamp(&stat)),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "it is no longer a regular file")),
    }
}

/// How many names an open file has.
///
/// # Errors
/// The system's.
// Its type has 32 bits on some machines.
#[allow(clippy::useless_conversion)]
pub fn names_of(file: impl AsFd) -> io::Result<u64> {
    Ok(u64::from(fstat(file)?.st_nlink))
}

fn stamp(stat: &Stat) -> Stamp {
    let ns = |s: i64, ns: u64| s.saturating_mul(1_000_000_000).saturating_add(i64::try_from(ns).unwrap_or(0));
    Stamp {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

const fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    }
}

/// What a directory's entry is; some file systems do not give the type with the name.
pub(crate) fn kind_of(dir: &Parent<'_>, part: &CStr, reported: FileType) -> Kind {
    match reported {
        FileType::Unknown => stat_in(dir, part).map_or(Kind::Other, |(kind, _)| kind),
        reported => kind(reported),
    }
}

/// Opens a directory of a directory, unless something is mounted there: a rename could not lead out of it, also
/// where it is the same file system.
fn enter(at: impl AsFd, part: &[u8]) -> Result<OwnedFd, Errno> {
    match openat2(&at, part, DIRECTORY, Mode::empty(), ResolveFlags::NO_XDEV) {
        // Kernels before 5.6, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => openat(&at, part, DIRECTORY, Mode::empty()),
        opened => opened,
    }
}

fn make_dir(at: impl AsFd, part: &[u8]) -> io::Result<OwnedFd> {
    match mkdirat(&at, part, Mode::from_raw_mode(0o775)) {
        Err(Errno::EXIST) => {}
        made => {
            made?;
            fsync(&at)?;
        }
    }
    Ok(openat(&at, part, DIRECTORY, Mode::empty())?)
}

/// Renames without ever replacing what has the name.
fn move_new(from_dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> Result<(), Errno> {
    match renameat_with(&from_dir, from, &to_dir, to, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag; a link has the same effect in two steps.
        Err(Errno::INVAL | Errno::NOSYS) => {
            linkat(&from_dir, from, &to_dir, to, AtFlags::empty())?;
            unlinkat(&from_dir, from, AtFlags::empty())
        }
        renamed => renamed,
    }
}

/// Moves a file out of sight, replacing nothing: the name in `.sent` was never used before.
///
/// # Errors
/// It is gone, or the directory is.
pub fn move_to_sent(parent: impl AsFd, part: &[u8], root: &Root, sent_name: &str) -> io::Result<()> {
    Ok(renameat(parent, part, root.sent(), sent_name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_has_one_user_and_its_loss_is_noticed() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("replay");
        let root = Root::open(&path, true).unwrap();
        assert!(Root::open(&path, true).unwrap_err().to_string().contains("another process"));
        root.check().unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert!(root.check().is_err());
        assert!(Root::open(&path, false).is_err(), "it is not made behind somebody's back");
        fs::create_dir(&path).unwrap();
        assert!(root.check().is_err(), "another directory has the path");
        Root::open(&path, false).unwrap().check().unwrap();
    }

    #[test]
    fn nothing_is_overwritten_when_a_name_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), true).unwrap();
        let sent = dir.path().join(".sent");
        fs::write(sent.join("1"), "old").unwrap();
        fs::write(dir.path().join("a"), "new").unwrap();
        let name = root.put(root.sent(), b"1", b"a").unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"new");
        assert_eq!(fs::read(root.path_of(&name)).unwrap(), b"old");
        assert!(names::is_taken(&name));
        fs::write(sent.join("2"), "two").unwrap();
        assert_eq!(root.put(root.sent(), b"2", b"free").unwrap(), b"free");

        fs::create_dir(dir.path().join("s")).unwrap();
        for content in ["one", "two"] {
            fs::write(dir.path().join("s/q"), content).unwrap();
            root.quarantine(b"s/q").unwrap();
        }
        assert_eq!(fs::read(dir.path().join("quarantine/s/q")).unwrap(), b"one");
        assert_eq!(fs::read(dir.path().join("quarantine/again-1/s/q")).unwrap(), b"two");
    }
}

//! Removes a directory of somebody who would rather keep it.

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat},
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a directory with all that is in it. Links are removed and not followed; a directory that denies its owner is
/// opened first; and one of any depth takes two descriptors: what is in a directory of the first level is emptied by
/// moving its directories to the first level. What cannot be removed stays.
pub(super) fn clear(dir: &Path) {
    let Ok(root) = openat(CWD, dir, FOLDER, Mode::empty()) else { return };
    let mut number = 0_u64;
    // Each pass removes all directories of the first level, and has those of the second there for the next.
    while flatten(root.as_fd(), &mut number) {}
    let _ = unlinkat(CWD, dir, AtFlags::REMOVEDIR);
}

/// Whether anything was removed and something is left.
fn flatten(root: BorrowedFd<'_>, number: &mut u64) -> bool {
    let (mut is_left, mut is_better) = (false, false);
    for name in entries(root) {
        if is_folder(root, &name) {
            is_better |= empty(root, &name, number) && unlinkat(root, name.as_c_str(), AtFlags::REMOVEDIR).is_ok();
            is_left = true;
        } else {
            is_better |= unlinkat(root, name.as_c_str(), AtFlags::empty()).is_ok();
        }
    }
    is_left && is_better
}

/// Whether nothing is left in a directory of the first level.
fn empty(root: BorrowedFd<'_>, name: &CStr, number: &mut u64) -> bool {
    let Ok(folder) = open(root, name) else { return false };
    let mut is_empty = true;
    for inner in entries(folder.as_fd()) {
        let removed =
            if is_folder(folder.as_fd(), &inner) { Err(Errno::ISDIR) } else { unlink(folder.as_fd(), &inner) };
        is_empty &= removed
            .or_else(|_| {
                allow(folder.as_fd(), &inner);
                *number += 1;
                renameat(&folder, inner.as_c_str(), root, format!(".moved-{number}"))
            })
            .is_ok();
    }
    is_empty
}

fn unlink(folder: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    unlinkat(folder, name, AtFlags::empty())
}

/// Opens a directory, which its owner may have been denied.
fn open(root: BorrowedFd<'_>, name: &CStr) -> Result<std::os::fd::OwnedFd, Errno> {
    allow(root, name);
    openat(root, name, FOLDER, Mode::empty())
}

/// Gives a directory back to its owner. Root needs no such right, and must not be led astray by a link that takes the
/// directory's place.
fn allow(at: BorrowedFd<'_>, name: &CStr) {
    if !rustix::process::geteuid().is_root() && is_folder(at, name) {
        let _ = chmodat(at, name, Mode::RWXU, AtFlags::empty());
    }
}

fn is_folder(at: BorrowedFd<'_>, name: &CStr) -> bool {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

fn entries(folder: BorrowedFd<'_>) -> Vec<CString> {
    let all = Dir::read_from(folder).into_iter().flatten().flatten();
    all.map(|entry| entry.file_name().to_owned()).filter(|name| !matches!(name.to_bytes(), b"." | b"..")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn what_denies_its_removal_is_removed_and_what_a_link_leads_to_is_not() {
        let root = tempfile::tempdir().unwrap();
        let (dir, other) = (root.path().join("x"), root.path().join("other"));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        fs::write(dir.join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink(&other, dir.join("a/link")).unwrap();
        for path in ["a/b", "a"] {
            fs::set_permissions(dir.join(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
        clear(&dir);
        assert!(!dir.exists() && other.join("kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("x");
        fs::create_dir(&dir).unwrap();
        let mut at = openat(CWD, &dir, FOLDER, Mode::empty()).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
        clear(&dir);
        assert!(!dir.exists());
    }
}

//! Where the temporary directories of commands are.

use super::remove::clear;
use rustix::fs::{FlockOperation, flock};
use std::os::unix::fs::MetadataExt;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A directory of this worker's own below the machine's temporary directory; removed when it is dropped. Those of
/// workers that were killed are removed by the next worker of the same user.
#[derive(Debug)]
pub(crate) struct TempRoot {
    path: PathBuf,
    /// The directory, locked. The kernel lets go of it when this process ends, also when it is killed.
    _held: fs::File,
}

/// What such directories are called, before a random number.
const PREFIX: &str = "agentforge-tools-";
/// What they are called until they are locked.
const UNLOCKED: &str = ".agentforge-tools-";

impl TempRoot {
    /// Makes it below `parent`, and removes what is left of workers that are gone.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn make(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        let number = format!("{:016x}", rand::random::<u64>());
        let new = parent.join(format!("{UNLOCKED}{number}"));
        // Passable, so that commands of another user reach their own directory in it, but not readable.
        fs::DirBuilder::new().mode(0o711).create(&new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o711))?;
        let held = fs::File::open(&new)?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)?;
        let path = parent.join(format!("{PREFIX}{number}"));
        fs::rename(&new, &path)?;
        Ok(Self { path: path.canonicalize()?, _held: held })
    }

    /// A name for one command's directory that no other has had.
    pub(super) fn next(&self) -> PathBuf {
        self.path.join(format!("{:016x}", rand::random::<u64>()))
    }
}

impl Drop for TempRoot {
    fn drop(&mut self) {
        clear(&self.path);
    }
}

/// Removes the directories that no process holds.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // A link of this name is not followed, and what another user put there is not touched.
        let own = rustix::process::geteuid().as_raw();
        if !is_ours || !entry.metadata().is_ok_and(|about| about.is_dir() && about.uid() == own) {
            continue;
        }
        let Ok(found) = fs::File::open(entry.path()) else { continue };
        if flock(&found, FlockOperation::NonBlockingLockExclusive).is_ok() {
            clear(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_workers_that_are_gone_are_removed_and_no_others() {
        let parent = tempfile::tempdir().unwrap();
        let mine = TempRoot::make(parent.path()).unwrap();
        let (gone, other) = (parent.path().join(format!("{PREFIX}0000000000000000")), parent.path().join("other"));
        for dir in [&gone, &other] {
            fs::create_dir_all(dir.join("12/x")).unwrap();
        }
        let second = TempRoot::make(parent.path()).unwrap();
        assert!(!gone.exists() && other.exists() && mine.path.exists());
        assert_eq!(fs::metadata(&second.path).unwrap().permissions().mode() & 0o777, 0o711);
        let path = second.path.clone();
        drop(second);
        assert!(!path.exists());
    }
}

//! The data directory: made, locked against a second `dev`, and kept out of version control.
//!
//! ```text
//! .agentforge/  agentforge.db  tools.toml  nats/  logs/  run/  dev.lock
//! ```

use agentforge_runtime::private;
use agentforge_terminal::{Failure, Result};
use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

/// A log that is larger at the start is set aside.
const LOG_MAX_BYTES: u64 = 16 << 20;

/// A data directory that is ours until this value is dropped.
pub struct DataDir {
    path: PathBuf,
    /// Held, never read: the lock ends with the process, however that ends.
    _lock: File,
}

impl DataDir {
    /// Makes and locks it.
    ///
    /// # Errors
    /// It cannot be written, or another `dev` has it.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Failure::new(format!("the data directory {} cannot be used: {e}", path.display()))
                .hint("name another with --data-dir")
        };
        for folder in ["", "logs", "run", "nats"] {
            private::create_dir_all(&path.join(folder)).map_err(failed)?;
        }
        let path = path.canonicalize().map_err(failed)?;
        let lock =
            private::options().create(true).truncate(false).write(true).open(path.join("dev.lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(format!(
                    "the data directory {} is in use by another `agentforge dev`",
                    path.display()
                ))
                .code("in_use")
                .hint("stop that one, or give this one its own with --data-dir DIR --port-base 0"));
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let ignore = path.join(".gitignore");
        if !ignore.exists() {
            File::create(ignore).and_then(|mut f| f.write_all(b"*\n")).map_err(failed)?;
        }
        set_aside_large_logs(&path.join("logs"));
        Ok(Self { path, _lock: lock })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn set_aside_large_logs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_log = path.extension().is_some_and(|e| e == "log");
        if is_log && entry.metadata().is_ok_and(|m| m.len() > LOG_MAX_BYTES) {
            let _ = fs::rename(&path, path.with_extension("log.old"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_user_and_is_ignored_by_git() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/data");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(fs::read_to_string(first.path().join(".gitignore")).unwrap(), "*\n");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(first.path()).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "jobs and results of the installation are in it");
        let Err(failure) = DataDir::open(&path) else { panic!("a second one must not get it") };
        assert!(failure.hint.unwrap().contains("--data-dir"));
        drop(first);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "").unwrap();
        let Err(failure) = DataDir::open(&path) else { panic!("a file is no directory") };
        assert!(failure.message.contains("file"), "{failure}");
    }
}

//! The file of tokens: reads it, and again when it changes.

use crate::metrics;
use agentforge_access::{FILE_BYTES_MAX, Keyring, TokenFile};
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use tracing::{error, info};

/// Reads a file of tokens.
///
/// # Errors
/// What is wrong with it, as a sentence about the setting.
pub(crate) fn read_file(path: &Path) -> Result<TokenFile, String> {
    let at = |problem: &dyn std::fmt::Display| format!("{} {problem}", path.display());
    let file = File::open(path).map_err(|e| at(&format!("cannot be read: {e}")))?;
    let mode = file.metadata().map_err(|e| at(&format!("cannot be read: {e}")))?.mode();
    if mode & 0o002 != 0 {
        return Err(at(&"may be written by every user of this machine (chmod o-w)"));
    }
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    read.map_err(|e| at(&format!("cannot be read: {e}")))?;
    TokenFile::parse(&text).map_err(|e| at(&e))
}

/// What shows that a file is another one than before.
type Stamp = (u64, u64, i64, i64);

/// A file that is watched.
pub(crate) struct Watched {
    path: PathBuf,
    keyring: Keyring,
    /// Of what was read last, good or not; `None` while it cannot be had.
    seen: Option<Stamp>,
}

/// What a check of the file came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is as before.
    Same,
    /// Its tokens are in use from now on; so many.
    Changed(usize),
    /// It cannot be used; what was read before stays in use.
    Unusable(String),
}

impl Watched {
    pub(crate) fn new(path: PathBuf, keyring: Keyring) -> Self {
        Self { path, keyring, seen: None }
    }

    /// Looks at the file. Blocks.
    pub(crate) fn look(&mut self) -> Look {
        let stamp = fs::metadata(&self.path).ok().map(|m| (m.ino(), m.len(), m.mtime(), m.mtime_nsec()));
        if stamp.is_some() && stamp == self.seen {
            return Look::Same;
        }
        self.seen = stamp;
        let file = match read_file(&self.path) {
            Ok(file) => file,
            Err(problem) => return Look::Unusable(problem),
        };
        match self.keyring.replace(&file) {
            Ok(()) => Look::Changed(file.tokens.len()),
            Err(name) => {
                Look::Unusable(format!("{} has a token named {name}, as the settings have", self.path.display()))
            }
        }
    }
}

/// Says what a check of the file came to, and sets its metric.
pub(crate) fn report(look: Look) {
    match look {
        Look::Same => {}
        Look::Changed(tokens) => {
            metrics::FILE_OK.set(&[], 1.0);
            info!(tokens, "tokens file read");
        }
        Look::Unusable(problem) => {
            metrics::FILE_OK.set(&[], 0.0);
            error!(problem, "tokens file not usable; the tokens read before stay in use");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_access::{Tokens, digest};

    #[test]
    fn a_bad_change_keeps_what_was_and_a_good_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let line =
            |name: &str| TokenFile::line(name, agentforge_access::Role::Read, &digest(name), None, &Default::default());
        let keyring = Keyring::new(Tokens::default(), Vec::new());
        let has = |name: &str| keyring.tokens().find(name.as_bytes()).is_some();
        fs::write(&path, line("a")).unwrap();
        let mut watched = Watched::new(path.clone(), keyring.clone());
        assert_eq!((watched.look(), watched.look()), (Look::Changed(1), Look::Same));
        fs::write(&path, "a nonsense").unwrap();
        assert!(matches!(watched.look(), Look::Unusable(problem) if problem.contains("line 1")));
        assert_eq!((watched.look(), has("a")), (Look::Same, true), "said once, and the old one counts");
        // As a mounted Secret changes: by a rename.
        let next = dir.path().join("next");
        fs::write(&next, format!("{}\n{}\n", line("b"), line("c"))).unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!((watched.look(), has("a"), has("b")), (Look::Changed(2), false, true));
        fs::remove_file(&path).unwrap();
        assert!(matches!(watched.look(), Look::Unusable(_)) && has("b"));
    }

    #[test]
    fn a_file_that_anyone_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, "# none\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
        assert!(read_file(&path).unwrap_err().contains("chmod"));
    }
}

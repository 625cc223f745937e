//! Key files: read, checked, and read again when they changed.

use crate::{PublicKeys, Signer};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file with keys is much smaller.
const BYTES_MAX: u64 = 64 * 1024;
/// Rights of users who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;

/// A file that may change while the process runs.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    seen: String,
}

impl KeyFile {
    /// A file that nothing is known of yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), seen: String::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text, if that changed since the last call. A link that leads elsewhere now, as in a mounted Secret, counts.
    ///
    /// # Errors
    /// Of the file system; or it is larger than any file of keys.
    pub fn changed(&mut self) -> io::Result<Option<&str>> {
        let text = read(&mut File::open(&self.path)?)?;
        if text == self.seen {
            return Ok(None);
        }
        self.seen = text;
        Ok(Some(&self.seen))
    }
}

/// The private keys of a file that no other user may read.
///
/// # Errors
/// What is wrong with it, as a half-sentence that names the path.
pub fn read_private(path: &Path) -> Result<Signer, String> {
    let failed = |problem: String| format!("{}: {problem}", path.display());
    let mut file = File::open(path).map_err(|e| failed(e.to_string()))?;
    let mode = file.metadata().map_err(|e| failed(e.to_string()))?.permissions().mode();
    if mode & OTHERS != 0 {
        let problem = format!("every user of this machine may open it (mode {:04o}); chmod 600 it", mode & 0o7777);
        return Err(failed(problem));
    }
    let text = read(&mut file).map_err(|e| failed(e.to_string()))?;
    Signer::from_pem(&text).map_err(|e| failed(e.to_string()))
}

/// The public keys of a file.
///
/// # Errors
/// What is wrong with it, as a half-sentence that names the path.
pub fn read_public(path: &Path) -> Result<PublicKeys, String> {
    let failed = |problem: String| format!("{}: {problem}", path.display());
    let text = File::open(path).and_then(|mut file| read(&mut file)).map_err(|e| failed(e.to_string()))?;
    PublicKeys::from_pem(&text).map_err(|e| failed(e.to_string()))
}

fn read(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {BYTES_MAX} bytes")));
    }
    Ok(text)
}

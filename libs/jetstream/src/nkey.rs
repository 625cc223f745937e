//! Logging in with an NKey whose seed is in a file: the file is read again at each connect, so that a key is changed
//! without a restart.

use async_nats::{Auth, AuthError, ConnectOptions};
use nkeys::KeyPair;
use std::path::{Path, PathBuf};

/// Characters of a seed.
const SEED_CHARS: usize = 58;

/// Whether a setting holds a seed itself. Other text is taken for a path.
pub fn is_seed(value: &str) -> bool {
    value.starts_with("SU") && value.len() == SEED_CHARS
}

/// Options that sign with the seed that is in `path` at the time.
///
/// # Errors
/// A file that cannot be read now, or holds no seed.
pub fn options(path: PathBuf) -> Result<ConnectOptions, std::io::Error> {
    read(&path)?;
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        // A line of a local file: no task waits for it.
        let pair = read(&path);
        async move {
            let pair = pair.map_err(|e| AuthError::new(format!("the file of NATS_NKEY: {e}")))?;
            let mut auth = Auth::new();
            auth.nkey = Some(pair.public_key());
            auth.signature = Some(pair.sign(&nonce).map_err(AuthError::new)?);
            Ok(auth)
        }
    }))
}

/// The pair of the file's seed. What the file holds is not repeated.
fn read(path: &Path) -> Result<KeyPair, std::io::Error> {
    let text = std::fs::read_to_string(path)?;
    let seed = text.trim();
    let no_seed = || std::io::Error::new(std::io::ErrorKind::InvalidData, "it holds no seed of a user (SU…)");
    if !is_seed(seed) {
        return Err(no_seed());
    }
    KeyPair::from_seed(seed).map_err(|_| no_seed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_seed_is_named_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        assert!(options(path.clone()).is_err(), "there is none");
        std::fs::write(&path, "hunter2\n").unwrap();
        let fault = format!("{:?}", options(path.clone()).err().unwrap());
        assert!(fault.contains("no seed") && !fault.contains("hunter2"), "{fault}");
        let seed = KeyPair::new_user().seed().unwrap();
        std::fs::write(&path, format!("{seed}\n")).unwrap();
        assert_eq!(read(&path).unwrap().seed().unwrap(), seed);
    }
}

//! The console's public keys: read from a file, and again when it changes. What they sign says who uses the console, and
//! what that user may do.

use crate::metrics;
use agentforge_access::{CONSOLE_ISSUER, Guard, Issuer, KeySet, Keyring, Tokens};
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use tracing::{error, info};

/// Larger files are not of keys.
const BYTES_MAX: u64 = 64 << 10;

/// The file, and the keyring that has its keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConsoleKeys {
    path: PathBuf,
    keyring: Keyring,
    /// Whether that is the keyring of the door, which asks every caller for something.
    is_of_door: bool,
}

impl ConsoleKeys {
    /// The keys go to the door's own keyring if it has one.
    pub(crate) fn of(path: PathBuf, guard: &Guard) -> Self {
        match guard {
            Guard::Keyring(keyring) => Self { path, keyring: keyring.clone(), is_of_door: true },
            _ => {
                let keyring = Keyring::new(Tokens::default(), vec![Issuer::console()]);
                Self { path, keyring, is_of_door: false }
            }
        }
    }

    /// What checks tokens of the console where the door itself asks for none.
    pub(crate) fn apart(&self) -> Option<Guard> {
        (!self.is_of_door).then(|| Guard::Keyring(self.keyring.clone()))
    }

    /// Reads the file; whether its keys are others than before.
    pub(crate) fn load(&self) -> Result<bool, String> {
        let keys = read(&self.path)?;
        let place = self.keyring.issuers().iter().position(|issuer| issuer == CONSOLE_ISSUER);
        Ok(place.is_some_and(|place| self.keyring.set_keys(place, keys)))
    }

    /// Looks at the file, and says in the log what is new. Blocks.
    pub(crate) fn look(&self, told: &mut String) {
        let loaded = self.load();
        metrics::ISSUER_OK.set(&[CONSOLE_ISSUER], if loaded.is_ok() { 1.0 } else { 0.0 });
        match loaded {
            Ok(is_new) => {
                told.clear();
                if is_new {
                    info!(path = %self.path.display(), "the console's keys changed");
                }
            }
            Err(problem) if problem != *told => {
                error!(problem, "the console's keys are not usable; those read before stay in use");
                *told = problem;
            }
            Err(_) => {}
        }
    }
}

fn read(path: &Path) -> Result<KeySet, String> {
    let at = |problem: &dyn std::fmt::Display| format!("{} {problem}", path.display());
    let unreadable = |e: std::io::Error| at(&format!("cannot be read: {e}"));
    if fs::metadata(path).map_err(unreadable)?.mode() & 0o002 != 0 {
        return Err(at(&"may be written by every user of this machine (chmod o-w)"));
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(at(&format!("has more than {BYTES_MAX} bytes")));
    }
    KeySet::parse(&text).map_err(|problem| at(&problem))
}

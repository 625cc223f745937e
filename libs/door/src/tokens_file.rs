//! The file of tokens for a surface that checks its callers itself, without a door: it gets the file and its changes.

use crate::{
    config::{RELOAD_INTERVAL, TOKENS_FILE, same_name},
    watch::{Watched, read_file, report},
};
use agentforge_access::Keyring;
use agentforge_config::{Reader, Setting};
use std::{path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;

/// A file of tokens, and how often it is checked.
#[derive(Clone, Debug)]
pub struct TokensFile {
    path: PathBuf,
    interval: Duration,
}

impl TokensFile {
    /// Its settings.
    pub const SETTINGS: &'static [Setting] = &[TOKENS_FILE, RELOAD_INTERVAL];

    /// Reads the settings, and the file into the keyrings; faults stay in the reader. `None` without a file.
    pub fn read(reader: &mut Reader<'_>, keyrings: &[&Keyring]) -> Option<Self> {
        let interval = reader.get_in(&RELOAD_INTERVAL, Duration::from_millis(100)..=Duration::from_secs(3600));
        let path: PathBuf = reader.opt(&TOKENS_FILE)?;
        match read_file(&path) {
            Ok(file) => {
                for keyring in keyrings {
                    if let Err(name) = keyring.replace(&file) {
                        reader.fault(TOKENS_FILE.key, same_name(&name, "a setting"));
                    }
                }
            }
            Err(problem) => reader.fault(TOKENS_FILE.key, problem),
        }
        Some(Self { path, interval })
    }

    /// Gives the keyrings what the file has whenever it changes, until the stop.
    pub async fn keep(self, keyrings: Vec<Keyring>, stop: CancellationToken) {
        let watched = |keyring| Watched::new(self.path.clone(), keyring);
        let mut all: Vec<Watched> = keyrings.into_iter().map(watched).collect();
        loop {
            let looked = tokio::task::spawn_blocking(move || {
                for watched in &mut all {
                    report(watched.look());
                }
                all
            });
            let Ok(still) = looked.await else { return };
            all = still;
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

//! What the console needs on one machine: a key that the services know, a first login, and ports that are known before.

use crate::ports::{Port, Ports, free};
use agentforge_console::accounts::{DEV_PUBLIC, Keys, random};
use agentforge_terminal::{Failure, Result};
use std::{collections::BTreeMap, path::Path};

/// The console's part of a start on one machine.
#[derive(Clone, Debug, Default)]
pub struct ConsoleStart {
    /// Its public keys, for the services behind it.
    pub keys: Option<String>,
    /// The token of the link that logs the first user in.
    pub link: Option<String>,
    /// Free ports that were chosen before the start, by their places: the console must know where the others are.
    pub pinned: BTreeMap<u16, u16>,
}

impl ConsoleStart {
    /// Makes the key where there is none yet, and a link; `behind` are the ports of the services that it asks.
    ///
    /// # Errors
    /// What cannot be written or chosen.
    pub fn new(data: &Path, ports: Ports, behind: impl IntoIterator<Item = Port>) -> Result<Self> {
        Keys::dev(data).map_err(|problem| Failure::new(format!("no key for the console: {problem}")))?;
        let chosen = |e: std::io::Error| Failure::new(format!("no free port, or no random bytes: {e}"));
        let mut pinned = BTreeMap::new();
        for port in behind.into_iter().filter(|port| ports.of(*port) == 0) {
            pinned.insert(port.place, free().map_err(chosen)?);
        }
        let keys = data.join(DEV_PUBLIC).to_string_lossy().into_owned();
        Ok(Self { keys: Some(keys), link: Some(random().map_err(chosen)?), pinned })
    }
}

//! The settings as they apply: what `--check-config` prints. Secrets are already hidden.

use std::fmt;

/// Where an effective value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Given by the source.
    Set,
    /// The declared or worked-out default.
    Default,
    /// Optional and not given: the feature is off or decides for itself.
    Unset,
}

/// One setting as it applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The setting's key.
    pub key: &'static str,
    /// The value fit for showing: `[hidden]` for a secret, empty when unset.
    pub shown: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// The effective settings in the order of reading, each key once. `Display` prints a line for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    entries: Vec<Entry>,
    concerns: Vec<String>,
}

impl Effective {
    /// The first reading of a key is the one that counts.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.get(entry.key).is_none() {
            self.entries.push(entry);
        }
    }

    pub(crate) fn concern(&mut self, text: String) {
        if !self.concerns.contains(&text) {
            self.concerns.push(text);
        }
    }

    /// What is accepted and should not stay so, as half-sentences that begin with a setting's key. Without secrets.
    pub fn concerns(&self) -> &[String] {
        &self.concerns
    }

    /// The entries in the order of reading.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The entry of this key, if it was read.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Every key that was read; a service's test compares it with what the service declares.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.entries.iter().map(|entry| entry.key)
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            match entry.origin {
                Origin::Set => writeln!(f, "{}={}", entry.key, entry.shown)?,
                Origin::Default => writeln!(f, "{}={}  # default", entry.key, entry.shown)?,
                Origin::Unset => writeln!(f, "# {} is not set", entry.key)?,
            }
        }
        Ok(())
    }
}

//! Faults of a configuration: one per setting, all of them reported at once.
//!
//! A fault holds no secret: the reader hides values before it makes one.

use std::fmt;

/// The exit code of a process whose configuration is wrong (`EX_USAGE` of sysexits.h).
pub const EXIT_CODE: u8 = 64;

/// One thing that is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting's key.
    pub key: String,
    /// What is wrong, in words.
    pub problem: String,
    /// The value found, fit for showing; `None` when there was none or the fault spans settings.
    pub value: Option<String>,
    /// The allowed values in words, where the setting is known.
    pub allowed: Option<&'static str>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)?;
        match (&self.value, self.allowed) {
            (Some(value), Some(allowed)) => write!(f, " (value \"{value}\"; allowed: {allowed})"),
            (Some(value), None) => write!(f, " (value \"{value}\")"),
            (None, Some(allowed)) => write!(f, " (allowed: {allowed})"),
            (None, None) => Ok(()),
        }
    }
}

/// Every fault found in one reading, in the order of reading. Its `Display` is one line per fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn new(faults: Vec<Fault>) -> Self {
        Self(faults)
    }

    /// The faults in the order of reading; never empty.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// Whether a fault names this key.
    pub fn names(&self, key: &str) -> bool {
        self.0.iter().any(|fault| fault.key == key)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

//! Reads declared settings from a source, collecting every fault and every effective value.
//!
//! A reading call always returns a value, so that one pass finds all faults; `finish` decides
//! whether these values may be used. An empty or blank value counts as not set. A secret may be in a file, which
//! `<key>_FILE` names; it is read once.

use crate::effective::{Effective, Entry, Origin};
use crate::fault::{Fault, Faults};
use crate::redact::{HIDDEN, shown};
use crate::{ExposeSecret, Parse, SecretString, Setting, Source, secret_file};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};

/// Shortest secret that is searched for in the text of other faults; shorter ones would blank out
/// ordinary words.
const SCRUB_MIN_CHARS: usize = 4;

/// Collects values, faults and effective settings; see the module's description.
pub struct Reader<'a> {
    source: &'a dyn Source,
    faults: Vec<Fault>,
    effective: Effective,
    secrets: Vec<SecretString>,
    /// What the files of secrets hold, by the secret's key; `None` where there is none, or one at fault.
    files: BTreeMap<&'static str, Option<SecretString>>,
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("faults", &self.faults)
            .field("effective", &self.effective)
            .finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing yet.
    pub fn new(source: &'a dyn Source) -> Self {
        Self {
            source,
            faults: Vec::new(),
            effective: Effective::default(),
            secrets: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// The value, or the declared default. Without a value: a fault if there is no default, and a
    /// placeholder. A value that does not parse: a fault, and the default.
    pub fn get<T: Parse>(&mut self, setting: &Setting) -> T {
        self.read(setting, setting.default)
    }

    /// Like [`get`](Self::get), with a default that depends on other settings.
    pub fn get_or<T: Parse>(&mut self, setting: &Setting, default: &str) -> T {
        self.read(setting, Some(default))
    }

    /// The value if it is set, else the declared default if there is one, else `None`.
    pub fn opt<T: Parse>(&mut self, setting: &Setting) -> Option<T> {
        if self.raw(setting).is_none() && setting.default.is_none() {
            self.note(setting, String::new(), Origin::Unset);
            return None;
        }
        Some(self.read(setting, setting.default))
    }

    /// Like [`get`](Self::get), and a value outside `range` is a fault, for which the declared default is read: checks
    /// across settings do not find the same fault again.
    pub fn get_in<T: Parse + PartialOrd>(&mut self, setting: &Setting, range: impl RangeBounds<T>) -> T {
        let faults_before = self.faults.len();
        let value = self.get::<T>(setting);
        if self.faults.len() > faults_before || range.contains(&value) {
            return value;
        }
        self.refuse_value(setting, "is out of range".to_owned());
        setting.default.and_then(|default| T::parse(default).ok()).unwrap_or(value)
    }

    /// Like [`opt`](Self::opt), and a value outside `range` is a fault. `None` also for a value at fault.
    pub fn opt_in<T: Parse + PartialOrd>(&mut self, setting: &Setting, range: impl RangeBounds<T>) -> Option<T> {
        self.opt_if(setting, |value| if range.contains(value) { Ok(()) } else { Err("is out of range".to_owned()) })
    }

    /// Like [`opt`](Self::opt), and what `check` finds wrong with a value is its fault, a half-sentence such as `is not
    /// a name`. `None` also for a value at fault, so that it is reported once.
    pub fn opt_if<T: Parse>(&mut self, setting: &Setting, check: impl FnOnce(&T) -> Result<(), String>) -> Option<T> {
        let faults_before = self.faults.len();
        let value = self.opt::<T>(setting).filter(|_| self.faults.len() == faults_before)?;
        match check(&value) {
            Ok(()) => Some(value),
            Err(problem) => {
                self.refuse_value(setting, problem);
                None
            }
        }
    }

    /// Whether the source gives a value for this key; for checks across settings.
    pub fn is_set(&mut self, setting: &Setting) -> bool {
        self.raw(setting).is_some()
    }

    /// Records what a check across settings found. Values of secrets read so far are blanked out.
    pub fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let mut problem = problem.into();
        for secret in &self.secrets {
            if secret.expose_secret().chars().count() >= SCRUB_MIN_CHARS {
                problem = problem.replace(secret.expose_secret(), HIDDEN);
            }
        }
        self.push(Fault { key: key.to_owned(), problem, value: None, allowed: None });
    }

    /// Ends the reading: the effective settings, or every fault found.
    pub fn finish(self) -> Result<Effective, Faults> {
        if self.faults.is_empty() { Ok(self.effective) } else { Err(Faults::new(self.faults)) }
    }

    fn read<T: Parse>(&mut self, setting: &Setting, default: Option<&str>) -> T {
        let Some(raw) = self.raw(setting) else {
            return self.read_default(setting, default);
        };
        if setting.secret {
            self.secrets.push(SecretString::from(raw.as_str()));
        }
        self.note(setting, shown(&raw), Origin::Set);
        match T::parse(&raw) {
            Ok(value) => value,
            Err(problem) => {
                self.refuse(setting, problem, Some(&raw));
                default.and_then(|default| T::parse(default).ok()).unwrap_or_else(T::placeholder)
            }
        }
    }

    fn read_default<T: Parse>(&mut self, setting: &Setting, default: Option<&str>) -> T {
        let Some(default) = default else {
            self.note(setting, String::new(), Origin::Unset);
            self.refuse(setting, "is required and not set".to_owned(), None);
            return T::placeholder();
        };
        let is_declared = setting.default == Some(default);
        self.effective.push(Entry {
            key: setting.key,
            shown: if is_declared || !setting.secret { shown(default) } else { HIDDEN.to_owned() },
            origin: Origin::Default,
        });
        T::parse(default).unwrap_or_else(|problem| {
            self.refuse(setting, format!("the default {problem}"), Some(default));
            T::placeholder()
        })
    }

    /// The file that a secret comes from, if it comes from one: for those that read it again later.
    pub fn file_of(&self, setting: &Setting) -> Option<PathBuf> {
        let key = format!("{}{}", setting.key, secret_file::SUFFIX);
        trimmed(self.source.get(&key)).filter(|_| setting.by_file).map(PathBuf::from)
    }

    fn raw(&mut self, setting: &Setting) -> Option<String> {
        let given = trimmed(self.source.get(setting.key));
        if !setting.by_file {
            return given;
        }
        let held = match self.files.get(setting.key) {
            Some(held) => held.clone(),
            None => {
                let held = self.read_file(setting, given.is_some()).map(SecretString::from);
                self.files.insert(setting.key, held.clone());
                held
            }
        };
        given.or_else(|| held.map(|held| held.expose_secret().to_owned()))
    }

    /// What the file of a secret holds. Faults name the setting that names the file.
    fn read_file(&mut self, setting: &Setting, is_given: bool) -> Option<String> {
        let key = format!("{}{}", setting.key, secret_file::SUFFIX);
        let path = trimmed(self.source.get(&key))?;
        if is_given {
            self.fault(&key, format!("is set, and so is {}; leave one of them out", setting.key));
            return None;
        }
        match secret_file::read(Path::new(&path)) {
            Ok(file) => {
                if let Some(concern) = file.concern {
                    self.effective.concern(format!("{key}: {concern}"));
                }
                trimmed(Some(file.text))
            }
            Err(problem) => {
                self.fault(&key, format!("{path} {problem}"));
                None
            }
        }
    }

    fn note(&mut self, setting: &Setting, shown: String, origin: Origin) {
        let hide = setting.secret && !shown.is_empty();
        let shown = if hide { HIDDEN.to_owned() } else { shown };
        self.effective.push(Entry { key: setting.key, shown, origin });
    }

    /// Of the value that was read, which parsed.
    fn refuse_value(&mut self, setting: &Setting, problem: String) {
        let raw = self.raw(setting).or(setting.default.map(str::to_owned));
        self.refuse(setting, problem, raw.as_deref());
    }

    /// A parser's words may quote the value, so those about a secret are not passed on.
    fn refuse(&mut self, setting: &Setting, problem: String, raw: Option<&str>) {
        let (problem, value) = match (setting.secret, raw) {
            (true, Some(_)) => ("the value is not accepted".to_owned(), Some(HIDDEN.to_owned())),
            (_, raw) => (shown(&problem), raw.map(shown)),
        };
        let allowed = (!setting.values.is_empty()).then_some(setting.values);
        self.push(Fault { key: setting.key.to_owned(), problem, value, allowed });
    }

    fn push(&mut self, fault: Fault) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

/// A value without blanks around it; a blank one counts as not set.
fn trimmed(value: Option<String>) -> Option<String> {
    let value = value?;
    let trimmed = value.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;

//! The declaration of one setting: the only place with its key, default and meaning.
//!
//! Settings are constants of the crate that reads them; values only, nothing is read here.

/// One declared setting. Made with [`Setting::new`], usually as a `const`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The name of the environment variable.
    pub key: &'static str,
    /// The default as a user would write it. `None`: optional or required, as the reading call says.
    pub default: Option<&'static str>,
    /// What it means, in one or two sentences.
    pub help: &'static str,
    /// The allowed values in words, such as `port 0-65535`. Printed with every fault.
    pub values: &'static str,
    /// A secret's value is hidden in faults, in the effective settings and in `Debug`.
    pub secret: bool,
    /// A secret's value may be in the file that `<key>_FILE` names.
    pub by_file: bool,
    /// The default in words where it depends on something else, such as `value of ENV`.
    pub default_note: Option<&'static str>,
}

impl Setting {
    /// Declares a setting that is not secret.
    pub const fn new(
        key: &'static str,
        default: Option<&'static str>,
        values: &'static str,
        help: &'static str,
    ) -> Self {
        Self { key, default, help, values, secret: false, by_file: false, default_note: None }
    }

    /// The same setting, its value hidden wherever settings are shown. It may also be in the file that `<key>_FILE`
    /// names.
    pub const fn secret(self) -> Self {
        Self { secret: true, by_file: true, ..self }
    }

    /// The same secret, never in a file of that name: because `<key>_FILE` is a setting of its own.
    pub const fn not_by_file(self) -> Self {
        Self { by_file: false, ..self }
    }

    /// The name of the variable that names its file, where it may have one.
    pub fn file_key(&self) -> Option<String> {
        self.by_file.then(|| format!("{}{}", self.key, crate::secret_file::SUFFIX))
    }

    /// Describes a default that the reading code works out; see `Reader::get_or`.
    pub const fn default_note(self, note: &'static str) -> Self {
        Self { default_note: Some(note), ..self }
    }

    /// The default as `--help` and the documentation show it. What is declared here is public, also where the value
    /// that a user sets is a secret.
    pub fn shown_default(&self) -> Option<&'static str> {
        match (self.default_note, self.default) {
            (Some(note), _) => Some(note),
            (None, default) => default,
        }
    }
}

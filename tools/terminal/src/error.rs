//! What a command ends with when it does not succeed: an exit code, one line of what failed, a hint.
//!
//! Every error of the CLI becomes a [`Failure`] where it happens, so that `main` only prints it.
//! Never holds a token: nothing here quotes the environment or request metadata.

use std::{fmt, io};

/// Exit code for anything that failed.
pub const FAILED: u8 = 1;
/// Exit code for a wrong command line; clap uses the same.
pub const USAGE: u8 = 2;
/// Exit code of `--wait` when the job ended other than succeeded.
pub const NOT_SUCCEEDED: u8 = 3;

/// Shorthand of this crate.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub exit: u8,
    /// What failed, in one line; empty when everything was said already.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The stable code of the service, such as `not_found`.
    pub code: Option<String>,
}

impl Failure {
    /// Something failed; print what.
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: FAILED, message: message.into(), hint: None, code: None }
    }
    /// The command line asked for something impossible.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::new(message) }
    }
    /// Ends with `exit` and says nothing: the output said it.
    pub fn quiet(exit: u8) -> Self {
        Self { exit, ..Self::new("") }
    }
    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds the service's stable code.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Writing to stdout failed. A reader that went away (`| head`) is not a failure.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::quiet(0),
            _ => Self::new(format!("writing the output failed: {e}")),
        }
    }
}

/// Causes in one line, outermost first.
impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Self::new(format!("{e:#}"))
    }
}

//! How a command ends when it does not succeed: a gate that failed (1), a wrong command line (2), broken input (3).
//!
//! Every failure about a file names it with its line, as compilers do, so that editors and forges can link it.

use agentforge_terminal::Failure;
use std::{fmt, path::Path};

/// The input is broken.
pub const BROKEN: u8 = 3;

/// Something wrong in a file, at a line; 0 is the whole file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Fault {
    /// The file, as it was named.
    pub file: String,
    /// Its line, from 1; 0 when it is about all of it.
    pub line: usize,
    /// The rule that says so, such as `placeholder-runbook`.
    pub rule: &'static str,
    /// What is wrong.
    pub message: String,
}

impl Fault {
    /// Something wrong at a line of a file.
    pub fn new(file: &Path, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { file: file.display().to_string(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {} [{}]", self.message, self.rule)
    }
}

/// The input is broken at a line of a file; ends with [`BROKEN`]. Line 0 is the whole file.
pub fn broken(file: &Path, line: usize, message: impl fmt::Display) -> Failure {
    let place = if line == 0 { file.display().to_string() } else { format!("{}:{line}", file.display()) };
    Failure { exit: BROKEN, ..Failure::new(format!("{place}: {message}")) }.code("broken_input")
}

/// A gate failed; ends with 1.
pub fn gate(message: impl Into<String>) -> Failure {
    Failure::new(message).code("gate_failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_place_as_compilers_do() {
        let file = Path::new("a/b.json");
        assert_eq!(Fault::new(file, 7, "scope", "bad").to_string(), "a/b.json:7: bad [scope]");
        assert_eq!(Fault::new(file, 0, "scope", "bad").to_string(), "a/b.json: bad [scope]");
        let failure = broken(file, 3, "no");
        assert_eq!((failure.exit, failure.message.as_str()), (BROKEN, "a/b.json:3: no"));
    }
}

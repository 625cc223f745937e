//! Runs the program in a folder of its own.

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Prints what is wrong with the document on stdin by the schema in a file; the validator is PyPI's jsonschema.
const VALIDATE: &str = r"
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
check = validator(schema, format_checker=validator.FORMAT_CHECKER)
for error in check.iter_errors(json.load(sys.stdin)):
    print(error.json_path, error.message)
";

/// The moment of every test.
pub const AT: &str = "2026-03-01T12:00:00Z";

/// What the program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The program, to be run in `home` at [`AT`], without any variable that changes what it does.
pub fn command(home: &Path) -> Command {
    let mut command = bare(home);
    command.args(["--at", AT]);
    command
}

/// The same at the time of the clock.
pub fn bare(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentforge-governance"));
    command.current_dir(home).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // No settings of git, and nothing above the folder.
    command.env("HOME", home).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CEILING_DIRECTORIES", home.parent().unwrap());
    command
}

/// Runs it with these words.
pub fn run(home: &Path, words: &[&str]) -> Said {
    said(command(home).args(words).output().unwrap())
}

/// As text.
pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What is wrong with a document by one of our schemas, one line for each fault; empty when it is valid. Needs
/// `require("python3-jsonschema")`.
pub fn faults_by_schema(schema: &str, document: &str) -> String {
    let python = agentforge_harness::python_with("jsonschema").unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(schema);
    let mut child = Command::new(python)
        .args(["-c", VALIDATE])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let said = said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 0, "{schema}: {}", said.err);
    said.out
}

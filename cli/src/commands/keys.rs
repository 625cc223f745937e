//! `agentforge keys`: keys that the orchestrator signs attempts with, and their public parts for workers.
//!
//! Works on files only; no installation is asked. Private keys are never printed.

use agentforge_runtime::private;
use agentforge_signing::{new_private_pem, read_private};
use agentforge_terminal::{Failure, Output, Result};
use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

/// What to do with keys.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a new private key in a file that only you can read
    #[command(after_help = "\
Examples:
  agentforge keys new signing-key.pem                     for SIGNING_KEY_FILE of the orchestrator
  agentforge keys new next.pem && cat next.pem signing-key.pem > both.pem

The first key of a file signs; results of attempts that the others signed are accepted.")]
    New(File),
    /// Print the public parts of the private keys in a file
    #[command(after_help = "\
Examples:
  agentforge keys public signing-key.pem > verify-keys.pem    for VERIFY_KEYS_FILE of the workers")]
    Public(File),
}

/// A file of private keys.
#[derive(Debug, clap::Args)]
pub struct File {
    /// The file: PEM with Ed25519 keys in PKCS#8
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs a command.
///
/// # Errors
/// A file that exists already, or that cannot be written, read or used.
pub fn run(command: &Command, out: Output) -> Result {
    match command {
        Command::New(File { file }) => {
            make(file)?;
            let keys = read_private(file).map_err(Failure::new)?;
            out.note(format!("{}: a new key, {:?}", file.display(), keys));
            Ok(())
        }
        Command::Public(File { file }) => out.text(&read_private(file).map_err(Failure::new)?.public_keys().to_pem()),
    }
}

fn make(file: &Path) -> Result {
    let failed = |e: std::io::Error| Failure::new(format!("{}: {e}", file.display()));
    let mut to = private::options().write(true).create_new(true).open(file).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => failed(e).hint("a key is never overwritten: name another file, or move this one"),
        _ => failed(e),
    })?;
    to.write_all(new_private_pem().map_err(failed)?.as_bytes()).and_then(|()| to.sync_all()).map_err(failed)
}

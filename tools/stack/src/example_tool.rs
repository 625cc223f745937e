//! Tools for trying out `exec`: what a tool of one's own can look like. JSON on stdin, JSON on stdout.

use agentforge_terminal::{Failure, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Component, Path},
};

/// Arguments of a tool are small; more is a mistake.
const INPUT_MAX_BYTES: u64 = 1 << 20;

/// Which tool.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Reads {"path": FILE} from stdin, prints {"path", "sha256", "bytes", "lines"}
    #[command(after_help = "\
Examples:
  echo '{\"path\":\"README.md\"}' | agentforge example-tool digest

As a tool of a worker, in its tools file:
  [[tool]]
  name = \"digest\"
  argv = [\"agentforge\", \"example-tool\", \"digest\"]
  working_dir = \"/srv/files\"")]
    Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    path: String,
}

/// What `digest` found.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Found {
    /// The file as it was named.
    pub path: String,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Size of the content, in bytes.
    pub bytes: u64,
    /// How many line ends the content has.
    pub lines: u64,
}

/// Runs the tool: what it prints on stdout is the job's result, and an exit code other than 0 its failure.
///
/// # Errors
/// Input that is not understood, or a file that cannot be read.
pub fn run(command: &Command) -> Result {
    match command {
        Command::Digest => {
            let input: Input = serde_json::from_reader(std::io::stdin().lock().take(INPUT_MAX_BYTES))
                .map_err(|e| Failure::new(format!("the input is not {{\"path\": FILE}}: {e}")))?;
            agentforge_terminal::Output { json: true }.document(&digest(Path::new("."), &input.path)?)
        }
    }
}

/// Reads the file once, in pieces: its size does not matter.
fn digest(folder: &Path, path: &str) -> Result<Found> {
    let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !inside || path.is_empty() {
        return Err(Failure::new(format!("{path:?} is not a path inside the working directory")));
    }
    let failed = |e: std::io::Error| Failure::new(format!("{path} cannot be read: {e}"));
    let mut file = BufReader::with_capacity(1 << 16, File::open(folder.join(path)).map_err(failed)?);
    let (mut hash, mut bytes, mut lines) = (Sha256::new(), 0_u64, 0_u64);
    loop {
        let block = file.fill_buf().map_err(failed)?;
        if block.is_empty() {
            break;
        }
        hash.update(block);
        let length = block.len();
        bytes += length as u64;
        lines += block.iter().filter(|b| **b == b'\n').count() as u64;
        file.consume(length);
    }
    Ok(Found { path: path.to_owned(), sha256: hex::encode(hash.finalize()), bytes, lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_hashed_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "one\ntwo\n").unwrap();
        let found = digest(dir.path(), "a.txt").unwrap();
        assert_eq!((found.bytes, found.lines), (8, 2));
        assert_eq!(found.sha256, "c3f9c8c283a2b1f2f1896f27a01cbe3cddc0c9d93f752e4639035a0f5b36f6e8");
    }

    #[test]
    fn paths_stay_inside() {
        for bad in ["/etc/passwd", "../x", "a/../../x", ""] {
            assert!(digest(Path::new("."), bad).is_err(), "{bad}");
        }
    }
}

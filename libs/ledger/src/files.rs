//! The ledger's files: one a day, UTC, in the order of their names.

use crate::{
    chain::{Chain, Fault, GENESIS},
    entry::Entry,
};
use jiff::{Timestamp, tz::TimeZone};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

/// The longest line there can be; a longer one is none of ours.
const LINE_MAX_BYTES: u64 = 1 << 20;

/// The name of the file that has the lines of this moment.
pub fn name_of(at: Timestamp) -> String {
    format!("sync_{}.jsonl", at.to_zoned(TimeZone::UTC).strftime("%Y%m%d"))
}

/// The ledger's files in a directory, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_ours = path.file_name().and_then(|n| n.to_str()).is_some_and(is_name);
        if is_ours {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn is_name(name: &str) -> bool {
    let day = name.strip_prefix("sync_").and_then(|rest| rest.strip_suffix(".jsonl"));
    day.is_some_and(|day| day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit()))
}

/// Reads every line of every file in order and follows the chain through all of them; `line` is called
/// of each with its file and its number there, from 1.
///
/// # Errors
/// A file cannot be read, or the first error of `line`.
pub fn read<E: From<io::Error>>(
    dir: &Path,
    mut line: impl FnMut(&Path, u64, Result<Entry, Fault>) -> Result<(), E>,
) -> Result<Chain, E> {
    read_lines(dir, |path, number, _, read| line(path, number, read))
}

/// As [`read`]; `line` is called of the hash of each line, too.
///
/// # Errors
/// As [`read`].
pub fn read_lines<E: From<io::Error>>(
    dir: &Path,
    mut line: impl FnMut(&Path, u64, [u8; 32], Result<Entry, Fault>) -> Result<(), E>,
) -> Result<Chain, E> {
    let mut chain = Chain::default();
    for path in list(dir)? {
        let mut reader = BufReader::new(File::open(&path)?);
        let (mut bytes, mut number) = (Vec::new(), 0);
        loop {
            bytes.clear();
            if io::Read::take(&mut reader, LINE_MAX_BYTES).read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            number += 1;
            let read = match bytes.strip_suffix(b"\n") {
                Some(whole) => chain.next(whole),
                None => Err(Fault::Unreadable("it has no end".to_owned())),
            };
            line(&path, number, chain.last().unwrap_or(GENESIS), read)?;
        }
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_a_file_and_others_are_not_read() {
        let at: Timestamp = "2026-11-21T23:59:59.9Z".parse().unwrap();
        assert_eq!(name_of(at), "sync_20261121.jsonl");
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["sync_20261122.jsonl", "sync_20261121.jsonl", "sync_2026.jsonl", "other.jsonl", "sync_20261121.jsonl.gz"]
        {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> =
            list(dir.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["sync_20261121.jsonl", "sync_20261122.jsonl"]);
    }
}

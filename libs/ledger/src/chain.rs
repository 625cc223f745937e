//! The chain of lines: each holds the hash of the one before, so that a gap or an edit shows. Pure.
//!
//! What a chain cannot show is that its end was cut off; the stream shows that.

use crate::entry::Entry;
use ring::digest::{SHA256, digest};
use std::fmt;

/// The hash before the first line.
pub const GENESIS: [u8; 32] = [0; 32];

/// The hash of a line, without its end.
pub fn hash(line: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, line).as_ref());
    out
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not a line of a ledger.
    Unreadable(String),
    /// It does not follow the line before: one of the two was changed, or lines are gone between them.
    Broken {
        /// The hash of the line before.
        expected: String,
        /// What the line says.
        found: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "no line of a ledger: {why}"),
            Self::Broken { expected, found } => {
                write!(f, "does not follow the line before: that has the hash {expected}, this one names {found}")
            }
        }
    }
}

/// Follows a chain line by line.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    before: Option<[u8; 32]>,
    /// The first line names a line before it that is not here.
    pub starts_late: bool,
    /// The first line says that it is the first of its file.
    pub starts_a_file: bool,
}

impl Chain {
    /// The hash of the line that was taken last.
    pub const fn last(&self) -> Option<[u8; 32]> {
        self.before
    }

    /// Takes the next line, without its end. After a fault the chain continues from this line.
    ///
    /// # Errors
    /// What is wrong with it; the entry, where it could be read, is lost on purpose: it proves nothing.
    pub fn next(&mut self, line: &[u8]) -> Result<Entry, Fault> {
        let before = self.before.replace(hash(line));
        let entry: Entry = serde_json::from_slice(line).map_err(|e| Fault::Unreadable(e.to_string()))?;
        match before {
            None => {
                self.starts_late = entry.prev != hex::encode(GENESIS);
                self.starts_a_file = entry.after.is_some();
            }
            Some(before) if entry.prev != hex::encode(before) => {
                return Err(Fault::Broken { expected: hex::encode(before), found: entry.prev });
            }
            Some(_) => {}
        }
        Ok(entry)
    }
}

/// A hash in hex. Faster than `hex::encode`, and there is one in each line and each message.
pub fn hex(hash: &[u8; 32]) -> String {
    let mut digits = [0; 64];
    hex::encode_to_slice(hash, &mut digits).expect("two digits for each byte");
    str::from_utf8(&digits).expect("digits are ASCII").to_owned()
}

/// Writes an entry as the line after the one with the hash `prev`; gives the line's own hash. The line's
/// end is written and not hashed.
pub fn write_line(out: &mut Vec<u8>, mut entry: Entry, prev: &[u8; 32]) -> [u8; 32] {
    let begin = out.len();
    entry.prev = hex(prev);
    serde_json::to_writer(&mut *out, &entry).expect("an entry of plain values serializes into memory");
    let hash = hash(&out[begin..]);
    out.push(b'\n');
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Event;

    fn ledger(n: usize) -> Vec<Vec<u8>> {
        let (mut out, mut prev) = (Vec::new(), GENESIS);
        for i in 0..n {
            prev = write_line(&mut out, Entry::note(Event::Startup, format!("line {i}")), &prev);
        }
        out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect()
    }

    fn faults(lines: &[Vec<u8>]) -> Vec<usize> {
        let mut chain = Chain::default();
        lines.iter().enumerate().filter(|(_, line)| chain.next(line).is_err()).map(|(n, _)| n).collect()
    }

    #[test]
    fn gaps_edits_swaps_and_insertions_show() {
        let lines = ledger(6);
        assert_eq!(faults(&lines), Vec::<usize>::new());

        let mut gap = lines.clone();
        gap.remove(2);
        assert_eq!(faults(&gap), [2]);

        let mut edit = lines.clone();
        edit[2] = String::from_utf8(edit[2].clone()).unwrap().replace("line 2", "line 9").into_bytes();
        assert_eq!(faults(&edit), [3], "the line after an edited one names another hash");

        let mut swap = lines.clone();
        swap.swap(1, 2);
        assert_eq!(faults(&swap), [1, 2, 3]);

        let mut twice = lines.clone();
        twice.insert(3, lines[2].clone());
        assert_eq!(faults(&twice), [3]);

        let mut garbage = lines;
        garbage[4] = b"{".to_vec();
        assert_eq!(faults(&garbage), [4, 5]);
    }

    #[test]
    fn a_chain_that_begins_in_the_middle_says_so() {
        let lines = ledger(3);
        let mut chain = Chain::default();
        chain.next(&lines[0]).unwrap();
        assert!(!chain.starts_late);
        let mut chain = Chain::default();
        chain.next(&lines[1]).unwrap();
        assert!(chain.starts_late);
    }
}

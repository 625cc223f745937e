//! A ledger read as a whole, and whether its beginning and its end were cut off.
//!
//! A chain cannot show by itself that its end was cut off. Each message of a site names what was the ledger's newest
//! line when it was sent, so the newest message in the hub's stream does.

use crate::{account::Account, chain::Chain, chain::GENESIS, files};
use std::{io, path::Path};

/// The newest message of a site in the hub's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The subject of its content.
    pub subject: String,
    /// The hash of the ledger's newest line when it was sent; absent in messages of versions that did not name it.
    pub anchor: Option<[u8; 32]>,
}

/// A ledger as it was read.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What its lines claim.
    pub account: Account,
    /// The chain through all of its lines.
    pub chain: Chain,
    /// Whether it has the line that the newest message names.
    has_anchor: bool,
}

impl Ledger {
    /// Reads all files of a ledger's directory; blocks. `subject` is where the site publishes, where it was not
    /// `edge.evidence.<site>`; `newest` is the message whose line is looked for.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn read(dir: &Path, subject: Option<&str>, newest: Option<&Newest>) -> io::Result<Self> {
        let anchor = newest.and_then(|newest| newest.anchor);
        let mut account = Account::default();
        let mut has_anchor = anchor.is_none_or(|anchor| anchor == GENESIS);
        let chain = files::read_lines::<io::Error>(dir, |path, number, hash, line| {
            has_anchor |= Some(hash) == anchor;
            account.take(path, number, line, subject);
            Ok(())
        })?;
        Ok(Self { account, chain, has_anchor })
    }

    /// Whether it reaches to the newest message: it has the line that the message names, and a line of the message.
    pub fn reaches(&self, newest: &Newest) -> bool {
        self.has_anchor && self.account.claims_content_of(&newest.subject)
    }

    /// What is wrong with its beginning and its end, as the rest of a sentence about the ledger. With `archived`, files
    /// of earlier days may be elsewhere.
    pub fn cut(&self, archived: bool, newest: Option<&Newest>) -> Vec<String> {
        let mut found = Vec::new();
        if self.chain.starts_late && !archived {
            found.push(
                "begins after a line that is not here: lines at its head were cut off, or files of earlier days were \
                 taken away (--archived, if that was on purpose)"
                    .to_owned(),
            );
        } else if self.chain.starts_late && !self.chain.starts_a_file {
            found.push(
                "begins in the middle of a file: lines at its head were cut off (a file of a version that did not \
                 mark its first line looks the same)"
                    .to_owned(),
            );
        }
        match newest {
            Some(newest) if !self.has_anchor => found.push(format!(
                "does not have the line that was its newest when {} was sent: its end was cut off, or it is another \
                 ledger",
                newest.subject
            )),
            Some(newest) if !self.reaches(newest) => found.push(format!(
                "has no line of the site's newest message, {}: its end was cut off, or its daemon was stopped in \
                 between and not started again",
                newest.subject
            )),
            _ => {}
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chain::write_line,
        entry::{Entry, Event},
    };

    fn delivery(sha256: &str, seq: u64, after: Option<&str>) -> Entry {
        Entry {
            sha256: Some(sha256.to_owned()),
            msg_id: Some(format!("pier:{sha256}")),
            seq: Some(seq),
            after: after.map(str::to_owned),
            ..Entry::note(Event::Replayed, "")
        }
    }

    /// A ledger of three deliveries, without its first `head` and its last `end` lines; the newest message was sent
    /// when the second line was the newest.
    fn cut(head: usize, end: usize, archived: bool) -> Vec<String> {
        let (mut text, mut prev, mut hashes) = (Vec::new(), GENESIS, Vec::new());
        for (n, sha256) in ["aa", "bb", "cc"].iter().enumerate() {
            prev = write_line(&mut text, delivery(sha256, n as u64 + 1, (n == 0).then_some("")), &prev);
            hashes.push(prev);
        }
        let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sync_19700101.jsonl"), lines[head..3 - end].concat()).unwrap();
        let newest = Newest { subject: "edge.evidence.pier.cc".to_owned(), anchor: Some(hashes[1]) };
        let ledger = Ledger::read(dir.path(), None, Some(&newest)).unwrap();
        assert_eq!(ledger.account.fault_count, 0);
        ledger.cut(archived, Some(&newest))
    }

    #[test]
    fn what_was_cut_off_is_found() {
        assert_eq!(cut(0, 0, false), Vec::<String>::new());
        for (head, end, archived, words) in [
            (1, 0, false, "begins after a line"),
            (1, 0, true, "begins in the middle of a file"),
            (0, 1, false, "has no line of the site's newest message"),
            (0, 2, false, "does not have the line that was its newest"),
        ] {
            let found = cut(head, end, archived);
            assert!(found.len() == 1 && found[0].starts_with(words), "{head} {end}: {found:?}");
        }
    }

    #[test]
    fn a_message_that_names_no_line_asks_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let newest = Newest { subject: "edge.evidence.pier.aa".to_owned(), anchor: None };
        let ledger = Ledger::read(dir.path(), None, Some(&newest)).unwrap();
        assert!(ledger.has_anchor && !ledger.reaches(&newest));
    }
}

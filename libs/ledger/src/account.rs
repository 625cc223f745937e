//! What a ledger claims, gathered so that it can be held against a stream. Pure.

use crate::{
    chain::Fault,
    entry::{Entry, Event},
    files,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

/// Faults that are kept in full; the rest is counted.
const FAULTS_MAX: usize = 100;

/// The claims of a ledger.
#[derive(Debug, Default)]
pub struct Account {
    /// Files of the ledger, as far as they had lines.
    pub files: u64,
    /// Lines, whole and broken ones.
    pub lines: u64,
    /// Lines by their event.
    pub events: BTreeMap<Event, u64>,
    /// What is wrong with the chain: the first hundred.
    pub faults: Vec<LocatedFault>,
    /// What is wrong with the chain: all of it.
    pub fault_count: u64,
    /// Contents that must be in the stream, by the subject of their message.
    contents: HashMap<String, Claim>,
    last_file: Option<std::path::PathBuf>,
}

/// A fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocatedFault {
    /// The ledger's file.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: String,
}

/// A content that was delivered, by the word of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The file that brought it first, percent-encoded.
    pub file: String,
    /// SHA-256, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its place in the stream.
    pub seq: u64,
    /// The subject of its message.
    pub subject: String,
}

impl Account {
    /// Takes the next line. `subject` is where messages were published, where it was not the site's own.
    pub fn take(&mut self, path: &Path, number: u64, line: Result<Entry, Fault>, subject: Option<&str>) {
        let begins = self.last_file.as_deref() != Some(path);
        if begins {
            self.files += 1;
            self.last_file = Some(path.to_owned());
        }
        self.lines += 1;
        match line {
            Ok(entry) => {
                *self.events.entry(entry.event).or_default() += 1;
                if let Some(problem) = misplaced(path, begins, &entry) {
                    self.fault(path, number, problem);
                }
                if entry.is_delivery()
                    && let Err(problem) = self.claim(entry, subject)
                {
                    self.fault(path, number, problem);
                }
            }
            Err(fault) => self.fault(path, number, fault.to_string()),
        }
    }

    fn claim(&mut self, entry: Entry, subject: Option<&str>) -> Result<(), String> {
        let (Some(sha256), Some(msg_id), Some(seq)) = (entry.sha256, entry.msg_id, entry.seq) else {
            return Err("a delivery without its hash, id or sequence".to_owned());
        };
        let Some(site) = msg_id.strip_suffix(sha256.as_str()).and_then(|rest| rest.strip_suffix(':')) else {
            return Err(format!("the id {msg_id} is not of the hash {sha256}"));
        };
        let subject = match subject {
            Some(subject) => format!("{subject}.{sha256}"),
            None => format!("edge.evidence.{site}.{sha256}"),
        };
        let file = entry.file.unwrap_or_default();
        let claim = Claim { file, sha256, bytes: entry.bytes.unwrap_or_default(), seq, subject: subject.clone() };
        self.contents.entry(subject).or_insert(claim);
        Ok(())
    }

    fn fault(&mut self, path: &Path, line: u64, problem: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_MAX {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.faults.push(LocatedFault { file, line, problem });
        }
    }

    /// Lines of an event.
    pub fn count(&self, event: Event) -> u64 {
        self.events.get(&event).copied().unwrap_or(0)
    }

    /// Different contents that were delivered.
    pub fn contents(&self) -> usize {
        self.contents.len()
    }

    /// Whether a line claims the content that has this subject.
    pub fn claims_content_of(&self, subject: &str) -> bool {
        self.contents.contains_key(subject)
    }

    /// What was delivered, by subject.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.contents.values()
    }

    /// What subjects begin with, without the last token: what to ask the stream for.
    pub fn subjects(&self) -> HashSet<&str> {
        self.contents.keys().filter_map(|subject| subject.rsplit_once('.')).map(|(root, _)| root).collect()
    }

    /// What the ledger claims and the stream does not have, in the order of the stream; and how much the
    /// stream has that the ledger does not claim.
    pub fn against(&self, present: &HashSet<String>) -> (Vec<Claim>, u64) {
        let mut missing: Vec<Claim> =
            self.contents.values().filter(|claim| !present.contains(&claim.subject)).cloned().collect();
        missing.sort_by_key(|claim| claim.seq);
        let unclaimed = present.iter().filter(|subject| !self.contents.contains_key(*subject)).count();
        (missing, unclaimed as u64)
    }
}

/// Whether a line does not belong into its file. The first line is of the file's day; a later one may be of an
/// earlier day, where the clock was set back, and never of a later one.
fn misplaced(path: &Path, begins: bool, entry: &Entry) -> Option<String> {
    let (file, own) = (path.file_name()?.to_str()?, files::name_of(entry.ts));
    let fits = if begins { own == file } else { own.as_str() <= file };
    (!fits)
        .then(|| format!("is of {}, which has its lines in {own}: the file was renamed, or the line moved", entry.ts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(event: Event, sha256: &str, seq: u64) -> Entry {
        Entry {
            file: Some(format!("file-{seq}")),
            bytes: Some(7),
            sha256: Some(sha256.to_owned()),
            msg_id: Some(format!("pier:{sha256}")),
            seq: Some(seq),
            ..Entry::note(event, "")
        }
    }

    #[test]
    fn what_is_claimed_is_held_against_what_is_there() {
        let (path, mut account) = (Path::new("/l/sync_19700101.jsonl"), Account::default());
        let lines = [
            Entry::note(Event::Startup, ""),
            delivery(Event::Replayed, "aa", 1),
            delivery(Event::Replayed, "bb", 2),
            delivery(Event::Duplicate, "aa", 1),
            delivery(Event::Duplicate, "cc", 9),
        ];
        for (n, line) in lines.into_iter().enumerate() {
            account.take(path, n as u64 + 1, Ok(line), None);
        }
        account.take(path, 6, Err(Fault::Unreadable("x".to_owned())), None);
        account.take(
            path,
            7,
            Ok(Entry { msg_id: Some("pier:zz".to_owned()), ..delivery(Event::Replayed, "dd", 3) }),
            None,
        );
        assert_eq!((account.lines, account.contents(), account.fault_count), (7, 3, 2));
        assert_eq!((account.count(Event::Replayed), account.count(Event::Duplicate)), (3, 2));
        assert_eq!(account.subjects().into_iter().collect::<Vec<_>>(), ["edge.evidence.pier"]);
        assert_eq!(account.faults[0].line, 6);

        let present = ["edge.evidence.pier.bb", "edge.evidence.pier.ee"].map(str::to_owned).into();
        let (missing, unclaimed) = account.against(&present);
        assert_eq!(missing.iter().map(|c| &*c.sha256).collect::<Vec<_>>(), ["aa", "cc"]);
        assert_eq!(unclaimed, 1);
    }

    #[test]
    fn lines_stand_in_the_file_of_their_day() {
        let line = |ts: &str| Entry { ts: ts.parse().unwrap(), ..Entry::note(Event::Error, "") };
        let (today, before, after) = ("2026-11-30T12:00:00Z", "2026-11-29T12:00:00Z", "2026-12-01T00:00:00Z");
        for (file, lines, faults) in [
            ("sync_20261130.jsonl", vec![today, before, today], 0),
            ("sync_20261130.jsonl", vec![before, today], 1),
            ("sync_20261130.jsonl", vec![today, after], 1),
            ("sync_20991231.jsonl", vec![today, today], 1),
            ("sync_20260101.jsonl", vec![today, today], 2),
        ] {
            let mut account = Account::default();
            for (n, ts) in lines.iter().enumerate() {
                account.take(Path::new(file), n as u64 + 1, Ok(line(ts)), None);
            }
            assert_eq!(account.fault_count, faults, "{file} {lines:?}");
        }
    }

    #[test]
    fn another_subject_may_have_been_configured() {
        let mut account = Account::default();
        account.take(
            Path::new("sync_19700101.jsonl"),
            1,
            Ok(delivery(Event::Replayed, "aa", 1)),
            Some("edge.evidence.north.pier"),
        );
        assert_eq!(account.claims().next().unwrap().subject, "edge.evidence.north.pier.aa");
    }
}

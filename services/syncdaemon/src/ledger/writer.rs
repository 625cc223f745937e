//! Appends batches to the ledger: written, synced, and only then acknowledged.
//!
//! Owns the ledger's newest file and the end of the chain. A batch that could not be written leaves the
//! file as it was before, so that the next try, with the same lines, finds no half of it.

use super::repair;
use crate::steps::{Step, reached};
use agentforge_ledger::{
    Entry, Event,
    chain::{self, GENESIS},
    files,
};
use agentforge_runtime::private;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A batch is at most this large, so what a power loss tears is within it.
pub const BATCH_MAX_BYTES: usize = 1 << 20;
/// What is read at the end of the newest file: the batch that may be torn, and the lines before it.
const TAIL_BYTES: u64 = 4 << 20;

/// The open ledger.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    /// Held only for the lock: one ledger has one writer.
    _lock: File,
    file: File,
    name: String,
    /// The file that has the line before, when this one has none.
    after: String,
    /// Where the last good line ends.
    len: u64,
    prev: [u8; 32],
    buffer: Vec<u8>,
}

impl Writer {
    /// Opens the ledger of a directory, which is made if need be, and puts its end right. Returns what was
    /// cut off, in bytes.
    ///
    /// # Errors
    /// The directory or its newest file cannot be used, or another process writes there.
    pub fn open(dir: &Path) -> io::Result<(Self, u64)> {
        private::create_dir_all(dir)?;
        let lock = File::open(dir)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process writes this ledger"))?;
        let mut torn = 0;
        let mut prev = GENESIS;
        let (mut name, mut after) = (files::name_of(Timestamp::now()), String::new());
        let all = files::list(dir)?;
        all.iter().for_each(|path| private::tighten(path));
        for path in all.into_iter().rev() {
            let (cut, last) = put_right(&path)?;
            torn += cut;
            if let Some(last) = last {
                prev = last;
                after = name_in(&path);
                // A clock that was set back does not put new lines before old ones.
                name = name.max(after.clone());
                break;
            }
        }
        let (file, len) = open_file(dir, &name)?;
        Ok((Self { dir: dir.to_owned(), _lock: lock, file, name, after, len, prev, buffer: Vec::new() }, torn))
    }

    /// Writes entries as one batch and syncs it. What is longer than a batch may be is written as several.
    ///
    /// # Errors
    /// The system's: no room, a broken disk. The file is as it was, and the same call may be tried again;
    /// of several batches the first may have been written, and then is written twice, which is harmless.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut entries = entries.iter().peekable();
        while entries.peek().is_some() {
            self.buffer.clear();
            let (mut prev, now, mut delivers) = (self.prev, Timestamp::now(), false);
            self.follow_the_day(now)?;
            while self.buffer.len() < BATCH_MAX_BYTES
                && let Some(entry) = entries.next()
            {
                delivers |= entry.is_delivery();
                let after = (self.len == 0 && self.buffer.is_empty()).then(|| self.after.clone());
                prev = chain::write_line(&mut self.buffer, Entry { ts: now, after, ..entry.clone() }, &prev);
            }
            if let Err(e) = self.write(delivers) {
                self.take_back();
                return Err(e);
            }
            self.prev = prev;
        }
        Ok(())
    }

    /// The hash of the newest line that is synced.
    pub const fn end(&self) -> [u8; 32] {
        self.prev
    }

    fn write(&mut self, delivers: bool) -> io::Result<()> {
        let passed = |step| {
            if delivers {
                reached(step)
            }
        };
        self.file.write_all(&self.buffer)?;
        passed(Step::LedgerWritten);
        self.file.sync_data()?;
        passed(Step::LedgerSynced);
        self.len += self.buffer.len() as u64;
        Ok(())
    }

    /// After a failure the end of the file is unknown. It is cut back; if even that fails now, the next
    /// start finds the torn line.
    fn take_back(&mut self) {
        let _ = self.file.set_len(self.len);
        let _ = self.file.sync_data();
    }

    /// A new day has a new file, and so has a file that was taken away.
    fn follow_the_day(&mut self, now: Timestamp) -> io::Result<()> {
        let name = files::name_of(now);
        let here = self.file.metadata()?;
        if name > self.name || here.nlink() == 0 {
            let (file, len) = open_file(&self.dir, &name)?;
            if self.len > 0 {
                self.after.clone_from(&self.name);
            }
            (self.file, self.len, self.name) = (file, len, name);
        } else if here.len() != self.len && here.is_file() {
            // A batch that could not be taken back, or a foreign edit: nothing of ours is based on it.
            self.file.set_len(self.len.min(here.len()))?;
            self.len = self.len.min(here.len());
        }
        Ok(())
    }
}

fn name_in(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn open_file(dir: &Path, name: &str) -> io::Result<(File, u64)> {
    let file = private::options().create(true).append(true).open(dir.join(name))?;
    // The file's name must survive a power loss as well as its lines.
    File::open(dir)?.sync_all()?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// Cuts off what is torn at the end of a file. Gives how much that was, and the hash of the last line.
fn put_right(path: &Path) -> io::Result<(u64, Option<[u8; 32]>)> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let from = len.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    Read::take(&mut file, TAIL_BYTES).read_to_end(&mut tail)?;
    let begin = match from {
        0 => 0,
        _ => tail.iter().position(|b| *b == b'\n').map_or(tail.len(), |at| at + 1),
    };
    let tail = &tail[begin..];
    let whole = repair::whole(tail);
    let torn = (tail.len() - whole) as u64;
    if torn > 0 {
        file.set_len(len - torn)?;
        file.sync_all()?;
    }
    let last = tail[..whole].split(|b| *b == b'\n').rfind(|line| !line.is_empty());
    Ok((torn, last.map(chain::hash)))
}

/// The note about what was cut off.
pub fn torn_note(bytes: u64) -> Entry {
    Entry::note(Event::Recovered, format!("{bytes} bytes of a line that was never synced were cut off the ledger"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_ledger::Chain;

    fn notes(n: usize) -> Vec<Entry> {
        (0..n).map(|i| Entry::note(Event::Error, format!("note {i}"))).collect()
    }

    fn read_all(dir: &Path) -> (Vec<Entry>, Vec<String>) {
        let (mut entries, mut faults) = (Vec::new(), Vec::new());
        let chain: Chain = files::read::<io::Error>(dir, |_, _, line| {
            match line {
                Ok(entry) => entries.push(entry),
                Err(fault) => faults.push(fault.to_string()),
            }
            Ok(())
        })
        .unwrap();
        assert!(!chain.starts_late);
        (entries, faults)
    }

    #[test]
    fn a_torn_end_is_cut_off_and_the_chain_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        for torn in [&b""[..], b"{\"ts\":\"2026", b"\0\0\0\0", b"\0\0}\n{}\n"] {
            let (mut writer, _) = Writer::open(dir.path()).unwrap();
            writer.append(&notes(3)).unwrap();
            drop(writer);
            let before = read_all(dir.path()).0;
            let path = files::list(dir.path()).unwrap().pop().unwrap();
            OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();

            let (mut writer, cut) = Writer::open(dir.path()).unwrap();
            assert_eq!(cut, torn.len() as u64);
            writer.append(&notes(1)).unwrap();
            let (after, faults) = read_all(dir.path());
            assert_eq!((after.len(), faults), (before.len() + 1, vec![]));
            assert_eq!(after[..before.len()], before, "nothing else was touched");
        }
    }

    #[test]
    fn a_ledger_has_one_writer_and_days_are_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = Writer::open(dir.path()).unwrap();
        assert!(Writer::open(dir.path()).is_err());
        writer.append(&notes(2)).unwrap();
        drop(writer);
        let today = files::list(dir.path()).unwrap().pop().unwrap();
        std::fs::rename(&today, dir.path().join("sync_20200101.jsonl")).unwrap();
        let (mut writer, _) = Writer::open(dir.path()).unwrap();
        writer.append(&notes(2)).unwrap();
        assert_eq!(files::list(dir.path()).unwrap().len(), 2);
        let (entries, faults) = read_all(dir.path());
        assert_eq!((entries.len(), faults), (4, vec![]));
    }

    #[test]
    fn a_file_that_was_taken_away_is_followed_by_another_and_the_gap_shows() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = Writer::open(dir.path()).unwrap();
        writer.append(&notes(2)).unwrap();
        std::fs::remove_file(files::list(dir.path()).unwrap().pop().unwrap()).unwrap();
        writer.append(&notes(1)).unwrap();
        let mut chain = Chain::default();
        let text = std::fs::read(files::list(dir.path()).unwrap().pop().unwrap()).unwrap();
        chain.next(text.strip_suffix(b"\n").unwrap()).unwrap();
        assert!(chain.starts_late);
    }

    #[test]
    fn many_entries_are_several_batches_of_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = Writer::open(dir.path()).unwrap();
        writer.append(&notes(12_000)).unwrap();
        let (entries, faults) = read_all(dir.path());
        assert_eq!((entries.len(), faults), (12_000, vec![]));
    }
}

//! Reading files: opened, read, checked again, and hashed before anything is made of them.
//!
//! Blocking; called in batches on threads for that. Never changes a file and never follows a symlink.

use crate::{
    content::{
        buffers::Buffers,
        hash::sha256_of_each,
        metadata::{self, FileMetadata},
    },
    directory::{
        self, Parent, Root,
        lease::{self, Writers},
        now_ns,
        stamp::{Arrival, Settled, Stamp, settled},
    },
    names,
    queue::{Queue, window::Candidate},
    steps::{Step, reached},
};
use agentforge_ledger::chain;
use bytes::Bytes;
use ring::digest::{Context, SHA256};
use rustix::io::Errno;
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc, time::Duration};

/// Pieces in which large files are read.
const PIECE_BYTES: usize = 256 << 10;
/// A file that was made and, as far as events reported, never closed is taken when it has not changed for this
/// long: one that came by a link is never closed.
const UNCLOSED_AGE_MAX: Duration = Duration::from_secs(3600);
/// How long a file may have a second name. Programs that publish a file by a link remove its first name at once.
const LINKED_AGE_MAX: Duration = Duration::from_secs(10);

/// What reading is bound by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Larger files are not read here: they go in chunks.
    pub whole_max_bytes: u64,
    /// Larger files are never sent.
    pub file_max_bytes: u64,
    /// Rest before a file is taken.
    pub settle: Duration,
}

/// A file as it is to be sent.
#[derive(Debug)]
pub struct LoadedFile {
    /// The file as it was found.
    pub candidate: Candidate,
    /// As it was when it was read.
    pub stamp: Stamp,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// All bytes of the file; only small files are loaded.
    pub content: Bytes,
    /// What its writer says about it.
    pub metadata: Option<Arc<FileMetadata>>,
}

/// Why a file is not sent now.
#[derive(Debug)]
pub enum Fault {
    /// It can never be sent, and why.
    Rejected(String),
    /// It cannot be read now.
    Failed(io::Error),
    /// It is still being written; check again after this time.
    Changing(Duration),
    /// A process has it open for writing.
    Open,
    /// There is no such file any more.
    Gone,
}

/// What a file turned out to be.
#[derive(Debug)]
pub enum Outcome {
    /// Ready to be sent.
    Loaded(LoadedFile),
    /// Too large for a message.
    Large(Candidate),
    /// Not to be sent now.
    Not(Candidate, Fault),
}

/// Reads files until `enough` bytes are read, then hashes them together; gives what was not read any more.
/// Files of one directory are opened through one descriptor.
pub fn read_batch(
    root: &Root,
    batch: Vec<Candidate>,
    rules: &Rules,
    enough: usize,
    buffers: &Arc<Buffers>,
    queue: &Queue,
) -> (Vec<Outcome>, Vec<Candidate>) {
    let (mut outcomes, mut bytes) = (Vec::with_capacity(batch.len()), 0);
    let mut batch = batch.into_iter();
    let mut at: Option<(Box<[u8]>, io::Result<Parent<'_>>)> = None;
    while bytes < enough
        && let Some(candidate) = batch.next()
    {
        reached(Step::Taken);
        let dir = names::split(&candidate.name).0;
        if at.as_ref().is_none_or(|(opened, _)| **opened != *dir) {
            at = Some((dir.into(), root.parent(dir)));
        }
        let outcome = match &at {
            Some((_, Ok(parent))) => read(&ReadContext { root, parent, queue }, candidate, rules, buffers),
            _ => Outcome::Not(candidate, Fault::Gone),
        };
        if let Outcome::Loaded(loaded) = &outcome {
            bytes += loaded.content.len();
        }
        outcomes.push(outcome);
    }
    name_by_content(&mut outcomes);
    (outcomes, batch.collect())
}

fn name_by_content(outcomes: &mut [Outcome]) {
    let mut read: Vec<&mut LoadedFile> = outcomes.iter_mut().filter_map(Outcome::loaded).collect();
    let contents: Vec<&[u8]> = read.iter().map(|loaded| &*loaded.content).collect();
    let hashes = sha256_of_each(&contents);
    for (loaded, hash) in read.iter_mut().zip(&hashes) {
        loaded.sha256 = chain::hex(hash);
        reached(Step::Read);
    }
}

impl Outcome {
    fn loaded(&mut self) -> Option<&mut LoadedFile> {
        match self {
            Self::Loaded(loaded) => Some(loaded),
            Self::Large(_) | Self::Not(..) => None,
        }
    }
}

/// Where a file is read.
struct ReadContext<'a> {
    root: &'a Root,
    parent: &'a Parent<'a>,
    queue: &'a Queue,
}

/// Reads one file of a directory, which is not hashed yet.
fn read(at: &ReadContext<'_>, candidate: Candidate, rules: &Rules, buffers: &Arc<Buffers>) -> Outcome {
    let (file, stamp, metadata) = match open_in(at, &candidate, rules) {
        Ok(opened) => opened,
        Err(fault) => return Outcome::Not(candidate, fault),
    };
    if stamp.size > rules.whole_max_bytes {
        return Outcome::Large(candidate);
    }
    let content = match buffers.read(&file, stamp.size) {
        Ok(content) => content,
        Err(e) => return Outcome::Not(candidate, fault_of(e)),
    };
    // Whether it still has its name is seen when it is removed; what was read is complete either way.
    if !directory::stamp_of(&file).is_ok_and(|now| now == stamp) {
        return Outcome::Not(candidate, Fault::Changing(rules.settle));
    }
    Outcome::Loaded(LoadedFile { candidate, stamp, sha256: String::new(), content, metadata })
}

/// A file that may be sent: open, as it is, and what its writer says about it.
pub type OpenedFile = (File, Stamp, Option<Arc<FileMetadata>>);

/// Opens a file that may be sent.
///
/// # Errors
/// Why it may not, now or ever.
pub fn open(root: &Root, candidate: &Candidate, rules: &Rules, queue: &Queue) -> Result<OpenedFile, Fault> {
    let parent = root.parent(names::split(&candidate.name).0).map_err(fault_of)?;
    open_in(&ReadContext { root, parent: &parent, queue }, candidate, rules)
}

fn open_in(at: &ReadContext<'_>, candidate: &Candidate, rules: &Rules) -> Result<OpenedFile, Fault> {
    let last = names::split(&candidate.name).1;
    let file = File::from(directory::open_in(at.parent, last).map_err(fault_of)?);
    let stamp = directory::stamp_of(&file).map_err(fault_of)?;
    reached(Step::Opened);
    // It may have been written to since it was found.
    if let Settled::In(time) = settled(candidate.found, stamp.ctime_ns, now_ns(), rules.settle) {
        return Err(Fault::Changing(time));
    }
    if at.is_written(&file, candidate, &stamp) {
        return Err(Fault::Open);
    }
    at_one_name(&file, &stamp)?;
    if stamp.size > rules.file_max_bytes {
        let max = rules.file_max_bytes;
        return Err(Fault::Rejected(format!("{} bytes are more than SYNC_MAX_FILE_BYTES allows ({max})", stamp.size)));
    }
    let metadata = metadata::read(at.parent, last, &file, at.root.reports_writers())
        .map_err(|metadata::Unfinished| Fault::Open)?;
    Ok((file, stamp, metadata.map(Arc::new)))
}

/// A file with another name is somebody else's as well: a program that may link it here need not be able to read it, and
/// it would be sent to others. It waits while the other name may be that of a program that is about to remove it.
fn at_one_name(file: &File, stamp: &Stamp) -> Result<(), Fault> {
    let names = directory::names_of(file).map_err(fault_of)?;
    if names <= 1 {
        return Ok(());
    }
    // Only what changed less than this ago waits, however it came here.
    match settled(Arrival::Seen, stamp.ctime_ns, now_ns(), LINKED_AGE_MAX) {
        Settled::In(time) => Err(Fault::Changing(time)),
        Settled::Yes => Err(Fault::Rejected(format!(
            "it has {names} names (hard links); a file is sent when it has one, so copy it instead of linking it"
        ))),
    }
}

impl ReadContext<'_> {
    /// Whether a process has the file open for writing: according to the kernel, or, where that does not know, by
    /// what events reported about a file that was made and changed lately.
    fn is_written(&self, file: &File, candidate: &Candidate, stamp: &Stamp) -> bool {
        let writers = if self.root.reports_writers() { lease::writers(file) } else { Writers::Unknown };
        match writers {
            Writers::None => false,
            Writers::Some => true,
            Writers::Unknown => {
                let age = Duration::from_nanos(u64::try_from(now_ns().saturating_sub(stamp.ctime_ns)).unwrap_or(0));
                age < UNCLOSED_AGE_MAX && self.queue.open_files().is_made(&candidate.name)
            }
        }
    }
}

/// Whether the open file is as it was, and still has its name.
pub fn is_unchanged(root: &Root, name: &[u8], file: &File, before: &Stamp) -> bool {
    let now = directory::stamp_of(file).is_ok_and(|now| now == *before);
    now && root.stat(name).is_ok_and(|(_, here)| here == *before)
}

/// SHA-256 of a large file, in hex, read in pieces. `go_on` is asked before each: a stop must not wait.
///
/// # Errors
/// It cannot be read, or was stopped.
pub fn hash_large(file: &File, size: u64, mut go_on: impl FnMut() -> bool) -> io::Result<String> {
    let (mut context, mut at) = (Context::new(&SHA256), 0);
    let mut piece = vec![0; PIECE_BYTES];
    while at < size {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let want = PIECE_BYTES.min(usize::try_from(size - at).unwrap_or(PIECE_BYTES));
        file.read_exact_at(&mut piece[..want], at)?;
        context.update(&piece[..want]);
        at += want as u64;
    }
    Ok(hex::encode(context.finish()))
}

/// A file that we may not read will not become readable by waiting; other failures may pass.
pub fn fault_of(e: io::Error) -> Fault {
    match Errno::from_io_error(&e) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Fault::Gone,
        Some(Errno::ACCESS | Errno::PERM) => Fault::Rejected(format!("it cannot be read: {e}")),
        _ if e.kind() == io::ErrorKind::NotFound => Fault::Gone,
        // It became shorter while it was read.
        _ if e.kind() == io::ErrorKind::UnexpectedEof => Fault::Changing(Duration::ZERO),
        _ => Fault::Failed(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::digest::digest;
    use std::fs;

    const RULES: Rules = Rules { whole_max_bytes: 100, file_max_bytes: 1000, settle: Duration::from_secs(3600) };

    fn outcome(root: &Root, name: &str, found: Arrival) -> Outcome {
        let candidate = Candidate::new(name.as_bytes().into(), 0, found);
        let (mut outcomes, left) = read_batch(root, vec![candidate], &RULES, 1, &Arc::default(), &Queue::default());
        assert!(left.is_empty());
        outcomes.remove(0)
    }

    #[test]
    fn files_are_read_by_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), true).unwrap();
        for (name, size) in [("empty", 0), ("small", 100), ("large", 101), ("huge", 1001)] {
            fs::write(dir.path().join(name), vec![7; size]).unwrap();
        }
        std::os::unix::fs::symlink("small", dir.path().join("link")).unwrap();
        let Outcome::Loaded(empty) = outcome(&root, "empty", Arrival::Renamed) else { panic!() };
        assert_eq!(empty.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let Outcome::Loaded(small) = outcome(&root, "small", Arrival::Renamed) else { panic!() };
        assert_eq!((small.content.len(), small.stamp.size), (100, 100));
        assert!(matches!(outcome(&root, "large", Arrival::Renamed), Outcome::Large(_)));
        assert!(matches!(outcome(&root, "huge", Arrival::Renamed), Outcome::Not(_, Fault::Rejected(_))));
        for gone in ["link", "missing", "small/x"] {
            assert!(matches!(outcome(&root, gone, Arrival::Renamed), Outcome::Not(_, Fault::Gone)), "{gone}");
        }
        assert!(matches!(outcome(&root, "small", Arrival::Seen), Outcome::Not(_, Fault::Changing(_))), "it is new");
    }

    #[test]
    fn a_file_with_a_second_name_waits_and_is_then_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), true).unwrap();
        fs::write(dir.path().join("one"), "1").unwrap();
        fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
        for name in ["one", "two"] {
            let Outcome::Not(_, Fault::Changing(wait)) = outcome(&root, name, Arrival::Renamed) else {
                panic!("{name}")
            };
            assert!(wait <= LINKED_AGE_MAX);
        }
        let file = File::open(dir.path().join("one")).unwrap();
        let stamp = directory::stamp_of(&file).unwrap();
        let old = Stamp { ctime_ns: stamp.ctime_ns - i64::try_from(LINKED_AGE_MAX.as_nanos()).unwrap(), ..stamp };
        let refused = at_one_name(&file, &old);
        assert!(matches!(&refused, Err(Fault::Rejected(why)) if why.contains("2 names")), "{refused:?}");
        fs::remove_file(dir.path().join("two")).unwrap();
        assert!(at_one_name(&file, &old).is_ok());
        assert!(matches!(outcome(&root, "one", Arrival::Renamed), Outcome::Loaded(_)));
    }

    #[test]
    fn another_file_under_the_name_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), true).unwrap();
        fs::write(dir.path().join("a"), "one").unwrap();
        let candidate = Candidate::new(b"a"[..].into(), 0, Arrival::Renamed);
        let (file, stamp, _) = open(&root, &candidate, &RULES, &Queue::default()).unwrap();
        assert!(is_unchanged(&root, b"a", &file, &stamp));
        fs::write(dir.path().join("b"), "two").unwrap();
        fs::rename(dir.path().join("b"), dir.path().join("a")).unwrap();
        assert!(!is_unchanged(&root, b"a", &file, &stamp));
    }

    #[test]
    fn a_large_file_has_the_hash_of_its_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|n| (n % 251) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let expected = hex::encode(digest(&SHA256, &bytes));
        assert_eq!(hash_large(&file, bytes.len() as u64, || true).unwrap(), expected);
        assert!(hash_large(&file, bytes.len() as u64, || false).is_err());
        assert!(matches!(
            fault_of(hash_large(&file, bytes.len() as u64 + 1, || true).unwrap_err()),
            Fault::Changing(_)
        ));
    }
}

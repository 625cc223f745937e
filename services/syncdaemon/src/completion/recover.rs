//! `.sent/` at the start: what a crash left between "in the ledger" and "unlinked".
//!
//! A name in it begins with the hash of what was sent. A file with that content is in the ledger and in
//! the stream, and is unlinked, or lingers first where it is unknown whether a writer has it open. Any other was
//! put under the name by a writer in between, or is written to now, and goes back.

use crate::{
    content::read::hash_large,
    directory::{
        self, Kind, Root,
        lease::{self, Writers},
        stamp::Stamp,
    },
    names,
    queue::removals::SentFile,
};
use agentforge_ledger::{Entry, Event, files};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, fsync, openat, unlinkat};
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    mem::MaybeUninit,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::warn;

/// What was found in `.sent`.
#[derive(Debug, Default)]
pub struct Recovered {
    /// A line for the ledger, when there was something.
    pub note: Option<Entry>,
    /// Files that were delivered, to be checked once more and unlinked.
    pub lingering: Vec<SentFile>,
}

/// Puts everything in `.sent` right.
///
/// # Errors
/// `.sent` or the ledger cannot be read.
pub fn recover(root: &Arc<Root>, ledger_dir: &Path, linger: Duration) -> io::Result<Recovered> {
    let left = list(root)?;
    if left.is_empty() {
        return Ok(Recovered::default());
    }
    let (mut removed, mut back, mut unsure) = (0, Vec::new(), Vec::new());
    for name in left {
        let Some(sent) = sent_hash(&name) else { continue };
        match content_of(root, &name) {
            Ok(Some((found, writers, stamp))) => match writers {
                Writers::None if found == sent => {
                    unlinkat(root.sent(), name.as_slice(), AtFlags::empty())?;
                    removed += 1;
                }
                Writers::Unknown if found == sent => unsure.push((name, sent, stamp)),
                _ => back.push((name, sent)),
            },
            Ok(None) => {}
            Err(error) => warn!(%error, "a file in .sent cannot be read and stays there"),
        }
    }
    let hashes: HashSet<&str> = back.iter().map(|(_, sent)| &**sent).chain(unsure.iter().map(|u| &*u.1)).collect();
    let names_of = if hashes.is_empty() { HashMap::new() } else { names_in(ledger_dir, &hashes)? };
    let original = |name: &[u8], sent: &str| names_of.get(sent).cloned().unwrap_or_else(|| name.to_vec());
    for (name, sent) in &back {
        root.put(root.sent(), name, &original(name, sent))?;
    }
    fsync(root.sent())?;
    let (returned, due) = (back.len(), Instant::now() + linger);
    let lingering: Vec<_> = unsure
        .into_iter()
        .filter_map(|(name, sent, stamp)| {
            let (original, root) = (original(&name, &sent).into(), Arc::downgrade(root));
            let sent_name = String::from_utf8(name).ok()?;
            Some(SentFile { name: original, sent_name, stamp, sidecar: None, due, lingers: true, tries: 0, root })
        })
        .collect();
    removed += lingering.len();
    let detail =
        format!(".sent: {removed} files that were delivered are unlinked, {returned} others are back in place");
    Ok(Recovered { note: Some(Entry::note(Event::Recovered, detail)), lingering })
}

fn list(root: &Root) -> io::Result<Vec<Vec<u8>>> {
    let dir = openat(root.sent(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
    let (mut entries, mut found) = (RawDir::new(&dir, &mut buffer), Vec::new());
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            found.push(name);
        }
    }
    Ok(found)
}

/// The hash in front of a name in `.sent`; `None` for what is none of ours.
fn sent_hash(name: &[u8]) -> Option<String> {
    let hash = name.split(|b| *b == b'.').next().filter(|hash| hash.len() == 64)?;
    String::from_utf8(hash.to_vec()).ok()
}

/// The hash of a file's content, whether it is written to, and how it is then.
fn content_of(root: &Root, name: &[u8]) -> io::Result<Option<(String, Writers, Stamp)>> {
    if !matches!(directory::stat_in(root.sent(), name), Ok((Kind::File, _))) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(root.sent(), name, flags, Mode::empty())?);
    // In this order: what a writer did that is gone by now shows in the content.
    let writers = if root.reports_writers() { lease::writers(&file) } else { Writers::Unknown };
    let stamp = directory::stamp_of(&file)?;
    Ok(Some((hash_large(&file, stamp.size, || true)?, writers, stamp)))
}

/// The names under which these contents were sent last.
fn names_in(ledger_dir: &Path, hashes: &HashSet<&str>) -> io::Result<HashMap<String, Vec<u8>>> {
    let mut found = HashMap::new();
    files::read::<io::Error>(ledger_dir, |_, _, line| {
        if let Ok(entry) = line
            && let (Some(file), Some(sha256)) = (entry.file, entry.sha256)
            && hashes.contains(&*sha256)
            && let Some(name) = names::decode(&file)
        {
            found.insert(sha256, name);
        }
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::writer::Writer;
    use ring::digest::{SHA256, digest};
    use std::fs;

    #[test]
    fn what_was_sent_is_unlinked_and_what_was_not_goes_back() {
        let (dir, ledger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Arc::new(Root::open(dir.path(), true).unwrap());
        assert_eq!(recover(&root, ledger.path(), Duration::ZERO).unwrap().note, None);
        let hash = |bytes: &[u8]| hex::encode(digest(&SHA256, bytes));
        let (mut writer, _) = Writer::open(ledger.path()).unwrap();
        let line = Entry {
            file: Some("sub/b%20b".to_owned()),
            sha256: Some(hash(b"sent")),
            ..Entry::note(Event::Replayed, "")
        };
        writer.append(&[line]).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let sent = dir.path().join(".sent");
        fs::write(sent.join(format!("{}.1", hash(b"old"))), "old").unwrap();
        fs::write(sent.join(format!("{}.2", hash(b"sent"))), "written since").unwrap();
        fs::write(sent.join(format!("{}.3", hash(b"unknown"))), "nobody knows whose").unwrap();
        fs::write(sent.join("foreign"), "left alone").unwrap();

        let note = recover(&root, ledger.path(), Duration::ZERO).unwrap().note.unwrap();
        assert!(note.detail.unwrap().contains("1 files that were delivered are unlinked, 2 others"));
        assert_eq!(fs::read(dir.path().join("sub/b b")).unwrap(), b"written since");
        assert_eq!(fs::read(dir.path().join(format!("{}.3", hash(b"unknown")))).unwrap(), b"nobody knows whose");
        assert_eq!(fs::read_dir(&sent).unwrap().count(), 1);
    }
}

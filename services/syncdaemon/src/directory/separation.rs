//! Whether queue and ledger lie apart: the ledger would be sent as evidence, line by line and without end, or
//! evidence would lie among its files.
//!
//! Looks through symlinks, and through bind mounts: what counts is where a directory lies in its file system,
//! not by which path it is reached.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Why the two may not be used together; `None` when they lie apart.
pub fn problem(queue: &Path, ledger: &Path) -> Option<String> {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let (Ok(queue_at), Ok(ledger_at)) = (resolved(queue), resolved(ledger)) else { return None };
    if lies_in(&ledger_at, &queue_at, &mounts) {
        return Some(format!(
            "{} lies inside SYNC_QUEUE_DIR ({}): the ledger would be sent as evidence",
            ledger_at.display(),
            queue_at.display()
        ));
    }
    lies_in(&queue_at, &ledger_at, &mounts).then(|| {
        format!("SYNC_QUEUE_DIR ({}) is inside it ({}): keep them separate", queue_at.display(), ledger_at.display())
    })
}

fn lies_in(inner: &Path, outer: &Path, mounts: &[u8]) -> bool {
    if inner.starts_with(outer) {
        return true;
    }
    let id = |path: &Path| fs::metadata(path).ok().map(|about| (about.dev(), about.ino()));
    if let Some(outer_id) = id(outer)
        && inner.ancestors().any(|ancestor| id(ancestor) == Some(outer_id))
    {
        return true;
    }
    match (place(inner, mounts), place(outer, mounts)) {
        (Some((fs, inner)), Some((other, outer))) => fs == other && inner.starts_with(outer),
        _ => false,
    }
}

/// The path without symlinks; what does not exist yet stays as it is written.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    for base in absolute.ancestors() {
        if let Ok(real) = base.canonicalize() {
            let rest = absolute.strip_prefix(base).unwrap_or(Path::new(""));
            return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
    }
    Ok(absolute)
}

/// Kinds of file systems whose mounts do not say where in them they lead.
const REMOTE_FILE_SYSTEMS: [&[u8]; 6] = [b"nfs", b"cifs", b"smb", b"ceph", b"fuse", b"9p"];

/// Where a path lies: its file system, and the path in that. `None` where that cannot be known.
fn place(path: &Path, mounts: &[u8]) -> Option<(Vec<u8>, PathBuf)> {
    let mut best: Option<(Option<Vec<u8>>, PathBuf, usize)> = None;
    for line in mounts.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b' ').skip(2);
        let (Some(device), Some(root), Some(point)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let kind = fields.skip_while(|field| *field != b"-").nth(1).unwrap_or_default();
        let device = (!REMOTE_FILE_SYSTEMS.iter().any(|name| kind.starts_with(name))).then(|| device.to_vec());
        let (root, point) = (unescaped(root), unescaped(point));
        let Ok(rest) = path.strip_prefix(&point) else { continue };
        let depth = point.components().count();
        // Of several at one place the last one is seen.
        if best.as_ref().is_none_or(|(_, _, before)| depth >= *before) {
            best = Some((device, root.join(rest), depth));
        }
    }
    best.and_then(|(device, place, _)| Some((device?, place)))
}

/// Blanks and the like are octal numbers in the kernel's list.
fn unescaped(field: &[u8]) -> PathBuf {
    let (mut out, mut rest) = (Vec::with_capacity(field.len()), field);
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_found_by_every_path_that_leads_into_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, other) = (dir.path().join("queue"), dir.path().join("other"));
        fs::create_dir_all(queue.join("sub")).unwrap();
        fs::create_dir(&other).unwrap();
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
            dir.path().join(name)
        };
        let (into, deep) = (link(&queue.join("sub"), "into"), link(&queue, "deep"));
        for ledger in
            [queue.clone(), queue.join("ledger/not/there"), into.join("ledger"), deep.join("x"), dir.path().to_owned()]
        {
            assert!(problem(&queue, &ledger).is_some(), "{}", ledger.display());
        }
        assert!(problem(&into, &queue).is_some(), "the queue by a link into the ledger");
        for ledger in [other.clone(), other.join("not/there"), dir.path().join("queue-ledger"), link(&other, "away")] {
            assert_eq!(problem(&queue, &ledger), None, "{}", ledger.display());
        }
    }

    #[test]
    fn a_bind_mount_leads_to_the_place_in_its_file_system() {
        let mounts = b"21 1 8:1 / / rw - ext4 /dev/sda rw\n\
                       40 21 8:1 /data/queue/sub\\040dir /mnt/ledger rw - ext4 /dev/sda rw\n\
                       41 21 8:2 / /mnt/disk rw shared:1 - ext4 /dev/sdb rw\n\
                       42 21 0:9 / /net/queue rw - nfs4 server:/queue rw\n\
                       43 21 0:9 / /net/ledger rw - nfs4 server:/ledger rw\n";
        let lies = |inner: &str, outer: &str| lies_in(Path::new(inner), Path::new(outer), mounts);
        assert!(lies("/mnt/ledger/x", "/data/queue"));
        assert!(!lies("/mnt/ledger", "/data/other") && !lies("/mnt/disk/data/queue", "/data/queue"));
        assert!(lies("/data/queue/sub dir/y", "/mnt/ledger"));
        assert!(!lies("/net/ledger", "/net/queue"), "both are called the root of one file system");
    }
}

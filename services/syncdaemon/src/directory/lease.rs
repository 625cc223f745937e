//! Whether any process has a file open for writing: the kernel is asked with a read lease.
//!
//! A lease is refused while a writer has the file open or mapped. It is given back at once, so no writer waits
//! for it longer than for a system call. Relies on a local file system, and on the file being ours or on
//! CAP_LEASE; everywhere else the answer is `Unknown`.

use libc::{F_RDLCK, F_SETLEASE, F_UNLCK, SIGURG, c_int};
use rustix::{fs::fstatfs, io::Errno};
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Whether a file is open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// By no process.
    None,
    /// By at least one.
    Some,
    /// It cannot be known.
    Unknown,
}

/// File systems whose kernel knows every writer, by the number of their kind: ext, XFS, Btrfs, tmpfs, F2FS,
/// overlay, FAT, exFAT, ZFS, JFS, NTFS, bcachefs. On those of a network a refused lease means other things.
const LOCAL_FILE_SYSTEMS: [u32; 12] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0xF2F5_2010,
    0x794C_7630,
    0x4D44,
    0x2011_BAB0,
    0x2FC1_2FC1,
    0x3153_464A,
    0x7366_746E,
    0xCA45_1A4E,
];

/// Which signal reports a file; libc does not name it.
const F_SETSIG: c_int = 10;

/// Whether leases mean what is said here on the file system of this file.
pub fn reports_writers_of(file: impl AsFd) -> bool {
    // The kind is a number of 32 bits, regardless of the type a platform has for it.
    fstatfs(file).is_ok_and(|about| LOCAL_FILE_SYSTEMS.contains(&(about.f_type as u32)))
}

/// Asks. `file` is open only for reading, on a file system of which [`reports_writers_of`] says yes.
pub fn writers(file: impl AsFd) -> Writers {
    let file = file.as_fd();
    // A writer that comes in this very moment makes the kernel signal us, by one that would end the process
    // if it were not one that needs no handler.
    let asked = fcntl(file, F_SETSIG, SIGURG).and_then(|()| fcntl(file, F_SETLEASE, F_RDLCK));
    match asked {
        Ok(()) => {
            let _ = fcntl(file, F_SETLEASE, F_UNLCK);
            Writers::None
        }
        Err(e) if Errno::from_io_error(&e) == Some(Errno::AGAIN) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

fn fcntl(file: impl AsFd, command: c_int, argument: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, so it is open; both commands take an integer and touch no memory.
    #[allow(unsafe_code)]
    let done = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, argument) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn a_writer_is_seen_for_as_long_as_it_has_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut writer = fs::File::create(&path).unwrap();
        let reader = fs::File::open(&path).unwrap();
        if !reports_writers_of(&reader) {
            return;
        }
        assert_eq!(writers(&reader), Writers::Some);
        writer.write_all(b"x").unwrap();
        let again = writer.try_clone().unwrap();
        drop(writer);
        assert_eq!(writers(&reader), Writers::Some, "a copy of its descriptor");
        drop(again);
        assert_eq!(writers(&reader), Writers::None);
        assert_eq!(writers(&reader), Writers::None, "asking changes nothing");
        drop(fs::OpenOptions::new().append(true).open(&path).unwrap());
        let other_reader = fs::File::open(&path).unwrap();
        assert_eq!(writers(&other_reader), Writers::None, "readers do not matter");
    }

    #[test]
    fn the_kernels_own_files_tell_nothing() {
        assert!(!reports_writers_of(fs::File::open("/proc/self/status").unwrap()));
    }
}

//! Whether a file has stopped changing. Pure.
//!
//! A file's change time cannot be set by its writer, so it shows the last write, rename or
//! link; the modification time orders files and shows in the message.

use std::time::Duration;

/// What identifies a file's content as far as the file system shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The file system.
    pub dev: u64,
    /// The file in it.
    pub ino: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Last modification, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of content or entry, nanoseconds since 1970.
    pub ctime_ns: i64,
}

impl Stamp {
    /// Whether this is the file as it was sent. A rename changes the change time, so that is not compared.
    pub fn is_still(&self, sent: &Self) -> bool {
        let key = |s: &Self| (s.dev, s.ino, s.size, s.mtime_ns);
        key(self) == key(sent)
    }
}

/// How a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was renamed to its name, and is complete by that.
    Renamed,
    /// It was there when the directory was read, or was written in place.
    Seen,
}

/// Whether to take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is at rest.
    Yes,
    /// Not before this time has passed.
    In(Duration),
}

/// Decides by the last change. A change time that lies ahead is from before the clock was set back: since
/// then nothing has changed, or the change would have the new clock's time.
pub fn settled(found: Arrival, ctime_ns: i64, now_ns: i64, settle: Duration) -> Settled {
    let age = now_ns.saturating_sub(ctime_ns);
    let Ok(age) = u64::try_from(age) else { return Settled::Yes };
    match settle.checked_sub(Duration::from_nanos(age)) {
        Some(left) if found == Arrival::Seen && !left.is_zero() => Settled::In(left),
        _ => Settled::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_file_is_taken_at_once_and_others_when_they_rest() {
        const SETTLE: Duration = Duration::from_secs(2);
        const S: i64 = 1_000_000_000;
        let cases = [
            (Arrival::Renamed, 100 * S, 100 * S, Settled::Yes),
            (Arrival::Seen, 100 * S, 100 * S, Settled::In(SETTLE)),
            (Arrival::Seen, 100 * S, 101 * S, Settled::In(Duration::from_secs(1))),
            (Arrival::Seen, 100 * S, 102 * S - 1, Settled::In(Duration::from_nanos(1))),
            (Arrival::Seen, 100 * S, 102 * S, Settled::Yes),
            (Arrival::Seen, 100 * S, 999 * S, Settled::Yes),
            (Arrival::Seen, 100 * S, 50 * S, Settled::Yes),
            (Arrival::Seen, i64::MIN, i64::MAX, Settled::Yes),
        ];
        for (found, ctime, now, expected) in cases {
            assert_eq!(settled(found, ctime, now, SETTLE), expected, "{found:?} {ctime} {now}");
        }
        assert_eq!(settled(Arrival::Seen, S, S, Duration::ZERO), Settled::Yes);
    }

    #[test]
    fn a_rename_keeps_a_file_and_every_other_change_makes_another() {
        let sent = Stamp { dev: 1, ino: 2, size: 3, mtime_ns: 4, ctime_ns: 5 };
        assert!(Stamp { ctime_ns: 6, ..sent }.is_still(&sent));
        for other in [
            Stamp { dev: 9, ..sent },
            Stamp { ino: 9, ..sent },
            Stamp { size: 9, ..sent },
            Stamp { mtime_ns: 9, ..sent },
        ] {
            assert!(!other.is_still(&sent), "{other:?}");
        }
    }
}

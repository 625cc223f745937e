//! The steps from finding a file to its end, named, and a place at each where a test can kill the process.
//!
//! Every step is passed through `reached`, so that the list is complete by use. The switch exists only in debug
//! builds and is armed only in `ENV=dev`; a release build has neither it nor its cost.

/// One step; the order is the order of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A file was taken from the window.
    Taken,
    /// It is open, nothing was read.
    Opened,
    /// It is read and hashed, and was checked again.
    Read,
    /// A chunk of a large file is stored.
    ChunkStored,
    /// All chunks are stored, the manifest is not sent.
    ChunksComplete,
    /// The message was sent, there is no PubAck yet.
    Sent,
    /// The PubAck is here, nothing is written.
    Acknowledged,
    /// The ledger's line is written, not synced.
    LedgerWritten,
    /// The ledger is synced, the file is in its place.
    LedgerSynced,
    /// The file is in `.sent/`, not checked.
    Moved,
    /// It is the file that was sent, and still there.
    Checked,
    /// It is unlinked, the directory is not synced.
    Unlinked,
    /// The directory is synced.
    DirectorySynced,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Taken,
        Self::Opened,
        Self::Read,
        Self::ChunkStored,
        Self::ChunksComplete,
        Self::Sent,
        Self::Acknowledged,
        Self::LedgerWritten,
        Self::LedgerSynced,
        Self::Moved,
        Self::Checked,
        Self::Unlinked,
        Self::DirectorySynced,
    ];

    /// Whether only a file that goes in chunks passes it.
    pub const fn is_of_large_files(self) -> bool {
        matches!(self, Self::ChunkStored | Self::ChunksComplete)
    }
}

pub(crate) use imp::{arm, reached};

#[cfg(debug_assertions)]
mod imp {
    use super::Step;
    use std::sync::OnceLock;

    /// Names the step, by its name in [`Step`], at which the process kills itself.
    const VARIABLE: &str = "SYNC_KILL_AT";

    static KILL_AT: OnceLock<Option<Step>> = OnceLock::new();

    /// Reads the switch, once per process.
    pub(crate) fn arm(is_dev: bool) {
        let named = |name: String| Step::ALL.into_iter().find(|step| format!("{step:?}") == name);
        KILL_AT.get_or_init(|| std::env::var(VARIABLE).ok().filter(|_| is_dev).and_then(named));
    }

    /// Passes a step; does not return when a test wants the process to die here.
    pub(crate) fn reached(step: Step) {
        if KILL_AT.get().copied().flatten() == Some(step) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // The signal is on its way; nothing may happen in between.
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(not(debug_assertions))]
mod imp {
    use super::Step;

    pub(crate) const fn arm(_is_dev: bool) {}

    #[inline(always)]
    pub(crate) const fn reached(_step: Step) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_are_in_the_list_in_their_order() {
        assert!(Step::ALL.windows(2).all(|pair| (pair[0] as u8) + 1 == pair[1] as u8));
        assert_eq!(Step::ALL.last(), Some(&Step::DirectorySynced));
    }
}

//! Whether the database took a write lately. Readiness is about writes: a disk that is full or a standby still answers
//! reads. The probe writes only if there were no other writes, and more often after a write that failed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A write within this is proof enough.
const RECENT: Duration = Duration::from_secs(4);
/// What a probe writes, bytes: about a page …
const PROBE_BYTES: usize = 4 * 1024;
/// … or, after a write that failed, as much as a group of submissions, so that room for a page is not taken for room.
const PROBE_BYTES_AFTER_FAILURE: usize = 256 * 1024;

/// The name of the row that probes write.
pub(super) const PROBE: &str = "probe";
/// The name of the row with the mission.
pub(super) const MISSION: &str = "mission";

/// The last write, and how it ended.
pub(super) struct Writes {
    start: Instant,
    /// Milliseconds since the start, plus one; 0 before the first.
    last_good: AtomicU64,
    failed: AtomicBool,
}

impl Default for Writes {
    fn default() -> Self {
        Self { start: Instant::now(), last_good: AtomicU64::new(0), failed: AtomicBool::new(false) }
    }
}

impl Writes {
    /// A write was committed, or could not be.
    pub(super) fn note(&self, good: bool) {
        if good {
            let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_good.store(ms.saturating_add(1), Ordering::Relaxed);
        }
        self.failed.store(!good, Ordering::Relaxed);
    }

    /// Whether no probe is needed.
    pub(super) fn is_recent(&self) -> bool {
        let last = self.last_good.load(Ordering::Relaxed);
        let age = self.start.elapsed().saturating_sub(Duration::from_millis(last.saturating_sub(1)));
        last > 0 && age < RECENT && !self.failed.load(Ordering::Relaxed)
    }

    /// What a probe writes.
    pub(super) fn filler(&self) -> String {
        let failed = self.failed.load(Ordering::Relaxed);
        "0".repeat(if failed { PROBE_BYTES_AFTER_FAILURE } else { PROBE_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_write_spares_a_probe_and_a_failed_one_asks_for_a_larger() {
        let writes = Writes::default();
        assert!(!writes.is_recent(), "nothing was written yet");
        writes.note(true);
        assert!(writes.is_recent());
        assert_eq!(writes.filler().len(), PROBE_BYTES);
        writes.note(false);
        assert!(!writes.is_recent());
        assert_eq!(writes.filler().len(), PROBE_BYTES_AFTER_FAILURE);
    }
}

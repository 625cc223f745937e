//! The settings of the audit log: how much of it is kept, the reads of which payloads it has, and how often it is
//! verified.

use crate::sensitive::{self, Marks};
use agentforge_config::{Reader, Setting};
use std::time::Duration;

const AUDIT_RETENTION: Setting =
    Setting::new("AUDIT_RETENTION", Some("90d"), "duration 1h-3650d", "How long entries of the audit log are kept.");
const AUDIT_ENTRIES_MAX: Setting = Setting::new(
    "AUDIT_ENTRIES_MAX",
    Some("1000000"),
    "1000 to 1000000000",
    "Entries kept of each chain of the audit log; the oldest go.",
);
const AUDIT_VERIFY_INTERVAL: Setting = Setting::new(
    "AUDIT_VERIFY_INTERVAL",
    Some("30s"),
    "duration 1s-1d",
    "Between two rounds that verify the next 20,000 entries of the audit log. After the last entry new ones are verified, and once an hour all of them again.",
);

/// What the settings say.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// How long entries are kept (AUDIT_RETENTION).
    pub retention: Duration,
    /// How many of each chain (AUDIT_ENTRIES_MAX).
    pub entries_max: u64,
    /// Whose payloads are sensitive (AUDIT_SENSITIVE_TOOLS, AUDIT_SENSITIVE_QUEUES).
    pub marks: Marks,
    /// Between two rounds of verification (AUDIT_VERIFY_INTERVAL).
    pub verify_interval: Duration,
}

impl AuditSettings {
    /// Reads them; faults stay in the reader.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self {
            retention: r.get_in(&AUDIT_RETENTION, Duration::from_secs(3600)..=days(3650)),
            entries_max: r.get_in(&AUDIT_ENTRIES_MAX, 1_000..=1_000_000_000),
            marks: Marks::read(r),
            verify_interval: r.get_in(&AUDIT_VERIFY_INTERVAL, Duration::from_secs(1)..=days(1)),
        }
    }

    /// All of them, for --help and the docs.
    pub fn settings() -> Vec<Setting> {
        [&[AUDIT_RETENTION, AUDIT_ENTRIES_MAX], sensitive::SETTINGS, &[AUDIT_VERIFY_INTERVAL]].concat()
    }
}

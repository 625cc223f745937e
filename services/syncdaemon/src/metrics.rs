//! What the syncdaemon counts. Names and labels are an interface: `docs/METRICS.md` is made from here.

use crate::outcome::Hold;
use agentforge_message_id::Site;
use agentforge_metrics::{Counter, Gauge, Metric};

/// What is not removed yet.
pub const QUEUE_DEPTH: Metric = Metric::gauge(
    "replay_queue_depth",
    &["site"],
    "Files in the replay directory that are not removed yet, including those in flight; 0 means drained. Absent until the first count.",
);
/// What the site sends now; compared with the limit it shows whether the uplink is the bottleneck.
pub const BANDWIDTH: Metric =
    Metric::gauge("edge_bandwidth_bps", &["site"], "Bits per second sent as evidence, over the last 5 s.");
/// How far behind.
pub const OLDEST_AGE: Metric = Metric::gauge(
    "replay_oldest_file_age_seconds",
    &["site"],
    "Time since the longest waiting known file was first seen; 0 without any.",
);
/// What became of files.
pub const FILES: Metric = Metric::counter(
    "replay_files_total",
    &["site", "outcome"],
    "Files by outcome: replayed, duplicate, recovered (sent before a crash), quarantined; and publishes that failed: retried.",
);
/// How much was delivered.
pub const BYTES: Metric =
    Metric::counter("replay_bytes_total", &["site"], "Bytes of delivered files, including duplicates.");
/// Why nothing is sent.
pub const HELD: Metric = Metric::gauge(
    "replay_held",
    &["site", "reason"],
    "1 while sending pauses: unavailable, full, refused, wrong_domain or ledger. The files stay.",
);

/// What is done with and stays.
pub const STUCK: Metric = Metric::gauge(
    "replay_stuck_files",
    &["site"],
    "Files that were delivered, or never can be, and cannot be removed. They are not sent again.",
);
/// Who is not done yet.
pub const OPEN: Metric =
    Metric::gauge("replay_open_files", &["site"], "Files that wait because a process has them open for writing.");

/// What is not taken.
pub const LEFT_ALONE: Metric = Metric::gauge(
    "replay_left_alone_files",
    &["site"],
    "Names in the replay directory that are ignored: hidden, unfinished (.tmp, .part, .partial), not regular files.",
);
/// For how long.
pub const LEFT_ALONE_AGE: Metric = Metric::gauge(
    "replay_left_alone_oldest_age_seconds",
    &["site"],
    "Time since the last change of the oldest ignored name; 0 without any. A writer that died leaves one.",
);
/// What waits for a person.
pub const IN_QUARANTINE: Metric =
    Metric::gauge("replay_quarantine_files", &["site"], "Files in quarantine/, which can never be sent as they are.");
/// What events do not report.
pub const UNWATCHED: Metric = Metric::gauge(
    "replay_unwatched_directories",
    &["site"],
    "Directories that inotify does not watch, because a limit is reached. Their files are found only by scans.",
);

/// All of them.
pub const METRICS: &[Metric] = &[
    QUEUE_DEPTH,
    BANDWIDTH,
    OLDEST_AGE,
    FILES,
    BYTES,
    HELD,
    STUCK,
    OPEN,
    LEFT_ALONE,
    LEFT_ALONE_AGE,
    IN_QUARANTINE,
    UNWATCHED,
];

/// Handles with the site filled in.
pub struct Handles {
    /// Cannot be removed.
    pub stuck: Gauge,
    /// Open for writing.
    pub open: Gauge,
    /// Names that are not taken.
    pub left_alone: Gauge,
    /// The oldest of them.
    pub left_alone_age: Gauge,
    /// Files in quarantine.
    pub in_quarantine: Gauge,
    /// Directories that the kernel does not watch for this process, so that only scans find new files.
    pub unwatched: Gauge,
    /// What is sent, in bits per second over the last 5 s.
    pub bandwidth: Gauge,
    /// For how long the oldest file has waited, in seconds.
    pub oldest_age: Gauge,
    /// Files that were new to the stream.
    pub replayed: Counter,
    /// Files whose content the stream had.
    pub duplicate: Counter,
    /// Sent by us before a crash.
    pub recovered: Counter,
    /// Files that can never be sent.
    pub quarantined: Counter,
    /// Publishes that failed.
    pub retried: Counter,
    /// Bytes of files that were delivered.
    pub bytes: Counter,
    site: Site,
}

impl Handles {
    /// Makes the handles; every series is there from the start.
    pub fn new(site: &Site) -> Self {
        let outcome = |outcome| FILES.counter_handle(&[site.as_str(), outcome]);
        let this = Self {
            stuck: STUCK.gauge_handle(&[site.as_str()]),
            open: OPEN.gauge_handle(&[site.as_str()]),
            left_alone: LEFT_ALONE.gauge_handle(&[site.as_str()]),
            left_alone_age: LEFT_ALONE_AGE.gauge_handle(&[site.as_str()]),
            in_quarantine: IN_QUARANTINE.gauge_handle(&[site.as_str()]),
            unwatched: UNWATCHED.gauge_handle(&[site.as_str()]),
            bandwidth: BANDWIDTH.gauge_handle(&[site.as_str()]),
            oldest_age: OLDEST_AGE.gauge_handle(&[site.as_str()]),
            replayed: outcome("replayed"),
            duplicate: outcome("duplicate"),
            recovered: outcome("recovered"),
            quarantined: outcome("quarantined"),
            retried: outcome("retried"),
            bytes: BYTES.counter_handle(&[site.as_str()]),
            site: site.clone(),
        };
        for counter in [&this.replayed, &this.duplicate, &this.recovered, &this.quarantined, &this.retried, &this.bytes]
        {
            counter.increment(0);
        }
        this.held(None);
        this
    }

    /// Shows how many files are not removed yet. Not before they were counted: 0 means that there are none.
    pub fn depth(&self, files: u64) {
        QUEUE_DEPTH.set(&[self.site.as_str()], files as f64);
    }

    /// Shows why sending pauses, if it does.
    pub fn held(&self, by: Option<Hold>) {
        for hold in Hold::ALL {
            HELD.set(&[self.site.as_str(), hold.as_str()], if by == Some(hold) { 1.0 } else { 0.0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        assert_eq!(agentforge_metrics::check(&[METRICS]), Vec::<String>::new());
    }
}

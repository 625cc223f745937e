//! The stream of the live picture: its settings and its definition.
//!
//! A separate plan, because the tactical API maintains it and is independent of jobs. The picture is for now: old
//! states are discarded by age, by number per marker and by size, and publishers are never refused.

use super::plan::{Plan, UNLIMITED, signed};
use crate::subjects::{STREAM_TACTICAL, TACTICAL_FILTER};
use agentforge_config::{ByteSize, Reader, Setting};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use std::time::Duration;

const TACTICAL_MAX_BYTES: Setting = Setting::new(
    "TACTICAL_MAX_BYTES",
    Some("1GiB"),
    "size 1MiB-1PiB",
    "Size of the stream tactical. When it is full, the oldest states are discarded.",
);
const TACTICAL_MAX_AGE: Setting = Setting::new(
    "TACTICAL_MAX_AGE",
    Some("24h"),
    "duration 1m-30d",
    "How long states of markers and zones are kept, and so how late a client can resume.",
);
const TACTICAL_REPLICAS: Setting =
    Setting::new("TACTICAL_REPLICAS", Some("1"), "1, 3 or 5", "Replicas of the stream tactical.");

const SETTINGS: [Setting; 3] = [TACTICAL_MAX_BYTES, TACTICAL_MAX_AGE, TACTICAL_REPLICAS];

/// States kept of one marker. A client that was disconnected for longer gets a gap.
const STATES_PER_SUBJECT: i64 = 100;
/// A retry of a publish comes within it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The limits of the live picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TacticalConfig {
    /// Size of the stream, in bytes.
    pub max_bytes: u64,
    /// Age at which states go.
    pub max_age: Duration,
    /// Copies of the stream.
    pub replicas: usize,
}

impl TacticalConfig {
    /// The declarations, in the order of reading.
    pub const SETTINGS: &'static [Setting] = &SETTINGS;

    /// Reads the settings; faults are the reader's.
    pub fn read(r: &mut Reader<'_>) -> Self {
        let replicas = r.get::<usize>(&TACTICAL_REPLICAS);
        if ![1, 3, 5].contains(&replicas) {
            let problem = format!("{replicas} copies are not possible (allowed: {})", TACTICAL_REPLICAS.values);
            r.fault(TACTICAL_REPLICAS.key, problem);
        }
        Self {
            max_bytes: r.get_in(&TACTICAL_MAX_BYTES, ByteSize(1 << 20)..=ByteSize(1 << 50)).bytes(),
            max_age: r.get_in(&TACTICAL_MAX_AGE, Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600)),
            replicas,
        }
    }
}

impl Default for TacticalConfig {
    /// The declared defaults.
    fn default() -> Self {
        let nothing_set = std::collections::BTreeMap::<String, String>::new();
        Self::read(&mut Reader::new(&nothing_set))
    }
}

/// The stream of markers and zones.
pub fn tactical_plan(c: &TacticalConfig) -> Plan {
    let tactical = stream::Config {
        name: STREAM_TACTICAL.to_owned(),
        subjects: vec![TACTICAL_FILTER.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_bytes: signed(c.max_bytes),
        max_messages: UNLIMITED,
        max_messages_per_subject: STATES_PER_SUBJECT,
        max_consumers: -1,
        max_age: c.max_age,
        num_replicas: c.replicas,
        duplicate_window: DUPLICATE_WINDOW.min(c.max_age),
        allow_direct: true,
        ..Default::default()
    };
    Plan { streams: vec![tactical], consumers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_kept_for_a_day_and_publishers_are_never_refused() {
        let [tactical] = &tactical_plan(&TacticalConfig::default()).streams[..] else { panic!() };
        assert_eq!((tactical.max_age, tactical.discard), (Duration::from_secs(86_400), DiscardPolicy::Old));
        assert_eq!(tactical.max_messages_per_subject, 100);
        assert!(tactical.allow_direct && !tactical.discard_new_per_subject);
    }
}

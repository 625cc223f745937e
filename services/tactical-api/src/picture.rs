//! The newest state of every marker and zone, for snapshots, for what filters need to know, and for due expiries.
//!
//! Bounded; states beyond that are still sent live.

use crate::{
    event::{Before, Event},
    feature::{Key, Kind},
    links::Signer,
    metrics::FEATURES,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// Markers and zones that are kept. Each takes about a kilobyte and a half.
pub const FEATURES_MAX: usize = 200_000;
/// Ends that are asked for at once.
const DUE_AT_ONCE: usize = 256;

/// A state whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which marker or zone.
    pub key: Key,
    /// The sequence of the state that ends; a newer one lives on.
    pub seq: u64,
    /// When it was stored.
    pub stored_unix_ms: i64,
}

/// The picture. Not shared by itself.
#[derive(Debug, Default)]
pub struct Picture {
    /// All up to this sequence is in here.
    seq: u64,
    features: HashMap<Key, Arc<Event>>,
    /// By moment and sequence.
    ends: BTreeMap<(i64, u64), Key>,
    counts: [i64; 2],
}

impl Picture {
    /// What was known of a marker before its next change.
    pub fn before(&self, key: &Key) -> Before {
        match self.features.get(key).and_then(|event| event.feature()) {
            Some(feature) => Before::State(feature.bounds(), feature.severity),
            None => Before::Nothing,
        }
    }

    /// Takes a change in.
    pub fn apply(&mut self, event: &Arc<Event>) {
        self.seq = self.seq.max(event.seq);
        let Some(key) = event.key() else { return };
        self.forget(key);
        let Some(feature) = event.feature() else { return };
        if self.features.len() >= FEATURES_MAX {
            return;
        }
        if let Some(end) = feature.expires_at {
            self.ends.insert((end.as_millisecond(), event.seq), key.clone());
        }
        self.counts[index(key.kind)] += 1;
        self.features.insert(key.clone(), event.clone());
    }

    fn forget(&mut self, key: &Key) {
        let Some(old) = self.features.remove(key) else { return };
        self.counts[index(key.kind)] -= 1;
        if let Some(end) = old.feature().and_then(|feature| feature.expires_at) {
            self.ends.remove(&(end.as_millisecond(), old.seq));
        }
    }

    /// Forgets states that lie before the first message that the stream has.
    pub fn forget_before(&mut self, first: u64) {
        let gone: Vec<Key> = self.features.iter().filter(|(_, e)| e.seq < first).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.forget(key));
        if !gone.is_empty() {
            self.report();
        }
    }

    /// All up to this sequence was looked at.
    pub fn seen(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
    }

    /// Forgets everything: the stream is another one.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets what the stream no longer has because of its age.
    pub fn age(&mut self, max_age: Duration, now_unix_ms: i64) {
        let oldest = now_unix_ms - i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        let old = self.features.iter().filter(|(_, event)| event.stored_unix_ms < oldest);
        let old: Vec<Key> = old.map(|(key, _)| key.clone()).collect();
        for key in old {
            self.forget(&key);
        }
        self.report();
    }

    /// To the gauges.
    pub fn report(&self) {
        for kind in [Kind::Marker, Kind::Zone] {
            FEATURES.set(&[kind.as_str()], self.counts[index(kind)] as f64);
        }
    }

    /// All that is on the picture, in the order of the stream, and the sequence that it is complete up to.
    pub fn snapshot(&self, signer: &Signer, now_unix_ms: i64) -> (Vec<Arc<Event>>, u64) {
        let now = Instant::now();
        let is_over = |event: &Event| {
            event.feature().and_then(|f| f.expires_at).is_some_and(|end| end.as_millisecond() <= now_unix_ms)
        };
        let here = self.features.values().filter(|event| !is_over(event));
        let mut events: Vec<_> = here.map(|e| e.refreshed(signer, now).unwrap_or_else(|| e.clone())).collect();
        events.sort_unstable_by_key(|event| event.seq);
        (events, self.seq)
    }

    /// States whose time is over, the oldest first. They stay until their removal comes.
    pub fn due(&self, now_unix_ms: i64) -> Vec<Due> {
        let over = self.ends.range(..=(now_unix_ms, u64::MAX)).take(DUE_AT_ONCE);
        over.filter_map(|((_, seq), key)| {
            let stored_unix_ms = self.features.get(key)?.stored_unix_ms;
            Some(Due { key: key.clone(), seq: *seq, stored_unix_ms })
        })
        .collect()
    }
}

fn index(kind: Kind) -> usize {
    match kind {
        Kind::Marker => 0,
        Kind::Zone => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Epoch, EventId},
        sanitise::sanitise,
    };

    fn signer() -> Signer {
        Signer::new(["s"], Duration::from_secs(300))
    }

    fn event(seq: u64, id: &str, body: &str) -> Arc<Event> {
        let stored = jiff::Timestamp::from_millisecond(seq as i64 * 1000).unwrap();
        let change = sanitise(&format!("tactical.markers.a.{id}"), body.as_bytes(), stored).unwrap();
        let id = EventId::bare(&Epoch::of(1_000), seq);
        Arc::new(Event::of_change(change, Before::Nothing, &id, stored.as_millisecond(), &signer()))
    }

    const HERE: &str = r#"{"title":"T","coordinates":[1,2]}"#;
    const SHORT: &str = r#"{"title":"T","coordinates":[1,2],"expires_at":"1970-01-01T00:01:00Z"}"#;

    fn ids(picture: &Picture, now: i64) -> Vec<u64> {
        picture.snapshot(&signer(), now).0.iter().map(|e| e.seq).collect()
    }

    #[test]
    fn the_newest_state_of_each_is_kept_until_it_ends() {
        let mut picture = Picture::default();
        for (seq, id, body) in [(1, "a", HERE), (2, "b", HERE), (3, "a", SHORT), (4, "c", HERE), (5, "c", "")] {
            picture.apply(&event(seq, id, body));
        }
        picture.seen(9);
        assert_eq!((ids(&picture, 59_999), picture.snapshot(&signer(), 0).1), (vec![2, 3], 9));
        assert_eq!(ids(&picture, 60_000), [2]);
        assert_eq!(picture.due(59_999), []);
        let due = picture.due(60_000);
        assert_eq!((due.len(), due[0].seq, &*due[0].key.id), (1, 3, "a"));
        // A newer state without an end lives on.
        picture.apply(&event(10, "a", HERE));
        assert_eq!(picture.due(60_000), []);
        picture.age(Duration::from_secs(5), 10_000);
        assert_eq!(ids(&picture, 0), [10]);
        picture.apply(&event(11, "c", HERE));
        picture.forget_before(11);
        assert_eq!(ids(&picture, 0), [11]);
        assert!(picture.before(event(0, "b", HERE).key().unwrap()) == Before::Nothing);
    }
}

//! One change of the picture as every client gets it: encoded once for both transports, shared by all.
//!
//! Owns ids and frames. A frame with a link to evidence grows old with its link and is encoded anew for
//! those who come late; everything else is the same bytes for everybody.

use crate::{
    feature::{Feature, Key, write_removed},
    filter::Filter,
    geometry::Bounds,
    links::Signer,
    sanitise::Change,
};
use bytes::Bytes;
use std::{
    fmt::{self, Write},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// Which incarnation of the stream: one that was made anew has another, so that its sequences are not taken
/// for those of the old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Of the stream that was made at this moment.
    pub fn of(created_unix_ns: i128) -> Self {
        Self(format!("{:x}", created_unix_ns / 1000).into())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a sequence that a client names: digits alone, and the one behind it is a sequence, too.
pub fn sequence(text: &str) -> Option<u64> {
    let seq = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    seq.filter(|seq| *seq < u64::MAX)
}

/// The place of a change: `<epoch>-<stream sequence>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId {
    /// The incarnation of the stream.
    pub epoch: Epoch,
    /// The sequence in it.
    pub seq: u64,
}

impl EventId {
    /// Reads an id; `None` for anything that is not of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, seq) = text.split_once('-')?;
        let is_epoch = (1..=32).contains(&epoch.len()) && epoch.bytes().all(|b| b.is_ascii_hexdigit());
        let seq = sequence(seq)?;
        is_epoch.then(|| Self { epoch: Epoch(epoch.into()), seq })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Server-sent events.
    Sse,
    /// WebSocket.
    Ws,
}

impl Channel {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Ws => "ws",
        }
    }
}

/// The bytes for both transports.
#[derive(Clone, Debug)]
pub struct Frames {
    sse: Bytes,
    ws: Bytes,
}

impl Frames {
    /// Encodes an event. `data` is JSON; without an id the client's own stays.
    pub fn new(event: &str, id: &str, data: &str, unix_ms: i64) -> Self {
        let mut sse = String::with_capacity(data.len() + 64);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(sse, "event: {event}");
        if !id.is_empty() {
            let _ = writeln!(sse, "id: {id}");
        }
        let _ = write!(sse, "data: {data}\n\n");
        Self { sse: sse.into(), ws: ws_text(&ws_envelope(event, id, data, unix_ms)) }
    }

    /// The keep-alive: a comment in SSE, with the id of all that was seen.
    pub fn heartbeat(id: &str, unix_ms: i64) -> Self {
        let sse = format!(": heartbeat\nid: {id}\n\n").into();
        Self { sse, ws: ws_text(&ws_envelope("heartbeat", id, "null", unix_ms)) }
    }

    /// The bytes for a transport.
    pub fn of(&self, channel: Channel) -> &Bytes {
        match channel {
            Channel::Sse => &self.sse,
            Channel::Ws => &self.ws,
        }
    }
}

fn ws_envelope(event: &str, id: &str, data: &str, unix_ms: i64) -> String {
    format!(
        r#"{{"event":"{event}","id":"{id}","data":{data},"ts":{}.{:03}}}"#,
        unix_ms.div_euclid(1000),
        unix_ms.rem_euclid(1000)
    )
}

/// A text frame of a server: final, not masked.
fn ws_text(text: &str) -> Bytes {
    crate::ws::frame(crate::ws::TEXT, text.as_bytes())
}

/// Why a client does not have everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The stream no longer has it.
    Expired,
    /// Newer states of the same markers took its place.
    Conflated,
    /// The stream is another one.
    Reset,
}

impl GapReason {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Conflated, Self::Reset];

    /// The word on the wire and the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Conflated => "conflated",
            Self::Reset => "reset",
        }
    }
}

/// What a client knew before of a marker, as far as it matters to filters.
#[derive(Clone, Debug, PartialEq)]
pub enum Before {
    /// It is new.
    Nothing,
    /// It had a state that is not known here.
    Unknown,
    /// This is where and how grave it was.
    State(Bounds, crate::feature::Severity),
}

/// What an event is about.
#[derive(Debug)]
enum Subject {
    State { feature: Box<Feature>, before: Before, left: OnceLock<Frames> },
    Removed(Key),
    Gap(GapReason),
}

/// One thing to tell clients.
#[derive(Debug)]
pub struct Event {
    /// Where it is in the stream. Of a gap: the last sequence that is missing.
    pub seq: u64,
    /// When the stream stored it.
    pub stored_unix_ms: i64,
    id: String,
    frames: Frames,
    /// When its link was made, where it has one.
    link_made: Option<Instant>,
    subject: Subject,
}

impl Event {
    /// A change of the stream.
    pub fn of_change(change: Change, before: Before, id: &EventId, stored_unix_ms: i64, signer: &Signer) -> Self {
        let subject = match change {
            Change::State(feature) => Subject::State { feature, before, left: OnceLock::new() },
            Change::Removed(key) => Subject::Removed(key),
        };
        Self::encoded(subject, id.seq, id.to_string(), stored_unix_ms, signer)
    }

    fn encoded(subject: Subject, seq: u64, id: String, stored_unix_ms: i64, signer: &Signer) -> Self {
        let (name, data, link_made) = match &subject {
            Subject::State { feature, .. } => {
                let mut data = String::with_capacity(512);
                feature.write(signer, &mut data);
                (feature.key.kind.as_str(), data, feature.evidence_id.as_ref().map(|_| Instant::now()))
            }
            Subject::Removed(key) => ("remove", removed(key), None),
            Subject::Gap(_) => unreachable!("gaps are made whole"),
        };
        let frames = Frames::new(name, &id, &data, stored_unix_ms);
        Self { seq, stored_unix_ms, id, frames, link_made, subject }
    }

    /// Tells that `missing` messages up to `to` cannot be had or were passed over. `from` is the first of
    /// them. Carries no id: a client that is cut off now resumes where it was.
    pub fn gap(reason: GapReason, from: &EventId, to: &EventId, missing: u64, unix_ms: i64) -> Self {
        let data = format!(r#"{{"reason":"{}","from":"{from}","to":"{to}","missing":{missing}}}"#, reason.as_str());
        let frames = Frames::new("gap", "", &data, unix_ms);
        let subject = Subject::Gap(reason);
        Self { seq: to.seq, stored_unix_ms: unix_ms, id: String::new(), frames, link_made: None, subject }
    }

    /// The marker or zone, of which a newer state takes the place of this one. `None` for gaps.
    pub fn key(&self) -> Option<&Key> {
        match &self.subject {
            Subject::State { feature, .. } => Some(&feature.key),
            Subject::Removed(key) => Some(key),
            Subject::Gap(_) => None,
        }
    }

    /// The state, unless it is a removal or a gap.
    pub fn feature(&self) -> Option<&Feature> {
        match &self.subject {
            Subject::State { feature, .. } => Some(feature),
            _ => None,
        }
    }

    /// Why there is a gap, if this tells of one.
    pub fn gap_reason(&self) -> Option<GapReason> {
        match self.subject {
            Subject::Gap(reason) => Some(reason),
            _ => None,
        }
    }

    /// What a client with this filter gets of it, if anything. One that knew a marker which has left what
    /// it looks at is told that it is gone.
    pub fn frame(&self, channel: Channel, filter: Option<&Filter>) -> Option<&Bytes> {
        let Some(filter) = filter else { return Some(self.frames.of(channel)) };
        let frames = match &self.subject {
            Subject::Gap(_) => &self.frames,
            Subject::Removed(key) if filter.names(key) => &self.frames,
            Subject::State { feature, .. } if filter.takes(&feature.key, feature.bounds(), feature.severity) => {
                &self.frames
            }
            Subject::State { feature, before, left } if filter.names(&feature.key) => {
                let was_seen = match before {
                    Before::Nothing => false,
                    Before::Unknown => true,
                    Before::State(bounds, severity) => filter.takes(&feature.key, *bounds, *severity),
                };
                if !was_seen {
                    return None;
                }
                left.get_or_init(|| Frames::new("remove", &self.id, &removed(&feature.key), self.stored_unix_ms))
            }
            Subject::Removed(_) | Subject::State { .. } => return None,
        };
        Some(frames.of(channel))
    }

    /// Bytes of its frame, for the accounts of buffers.
    pub fn weight(&self) -> usize {
        self.frames.sse.len()
    }

    /// The same with a new link, when its own has lost more than half of its time.
    pub fn refreshed(&self, signer: &Signer, now: Instant) -> Option<Arc<Self>> {
        let made = self.link_made.filter(|made| now.saturating_duration_since(*made) > stale_after(signer))?;
        let Subject::State { feature, before, .. } = &self.subject else { return None };
        debug_assert!(made <= now);
        let subject = Subject::State { feature: feature.clone(), before: before.clone(), left: OnceLock::new() };
        Some(Arc::new(Self::encoded(subject, self.seq, self.id.clone(), self.stored_unix_ms, signer)))
    }
}

fn stale_after(signer: &Signer) -> Duration {
    signer.ttl() / 2
}

fn removed(key: &Key) -> String {
    let mut data = String::with_capacity(160);
    write_removed(key, &mut data);
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sanitise::sanitise;

    fn event(payload: &str, before: Before) -> Event {
        let signer = Signer::new(["s"], Duration::from_secs(300));
        let now = jiff::Timestamp::from_second(1_700_000_000).unwrap();
        let change = sanitise("tactical.markers.a.b", payload.as_bytes(), now).unwrap();
        let id = EventId { epoch: Epoch::of(1_000_000), seq: 7 };
        Event::of_change(change, before, &id, 1_700_000_000_123, &signer)
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = EventId { epoch: Epoch::of(1_700_000_000_123_456_789), seq: 42 };
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        for other in ["", "-", "a-", "-1", "a-+1", "a-1-2", "g-1", "a-99999999999999999999999", "7"] {
            assert_eq!(EventId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn both_transports_say_the_same() {
        let event = event(r#"{"title":"T","coordinates":[1,2]}"#, Before::Nothing);
        let sse = std::str::from_utf8(event.frame(Channel::Sse, None).unwrap()).unwrap();
        let data = sse.strip_prefix("event: marker\nid: 3e8-7\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        let ws = event.frame(Channel::Ws, None).unwrap();
        let envelope: serde_json::Value = serde_json::from_slice(&ws[4..]).unwrap();
        assert_eq!(envelope["data"], serde_json::from_str::<serde_json::Value>(data).unwrap());
        assert_eq!((envelope["event"].as_str(), envelope["id"].as_str()), (Some("marker"), Some("3e8-7")));
        assert_eq!(envelope["ts"].as_f64(), Some(1_700_000_000.123));
    }

    #[test]
    fn who_looks_at_a_part_is_told_when_a_marker_leaves_it() {
        let filter = Filter::parse([("bbox", "0,0,10,10")]).unwrap();
        let inside = Before::State(
            crate::geometry::Bounds { west: 5.0, south: 5.0, east: 5.0, north: 5.0 },
            crate::feature::Severity::Low,
        );
        let told = |body: &str, before: Before| {
            let event = event(body, before);
            let frame = event.frame(Channel::Sse, Some(&filter)).cloned();
            frame.map(|f| String::from_utf8_lossy(&f).lines().next().unwrap().to_owned())
        };
        let (there, away) = (r#"{"title":"T","coordinates":[5,5]}"#, r#"{"title":"T","coordinates":[50,5]}"#);
        assert_eq!(told(there, Before::Nothing).as_deref(), Some("event: marker"));
        assert_eq!(told(away, Before::Nothing), None);
        assert_eq!(told(away, inside).as_deref(), Some("event: remove"));
        assert_eq!(told(away, Before::Unknown).as_deref(), Some("event: remove"));
        assert_eq!(told("", Before::Nothing).as_deref(), Some("event: remove"));
    }
}

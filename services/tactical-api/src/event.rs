//! One change of the picture as every client gets it: encoded once for both transports, shared by all.
//!
//! Owns ids and frames. A frame with a link to evidence ages with its link and is encoded again for later clients;
//! everything else is the same bytes for all clients.

use crate::{
    feature::{Feature, Key, write_removed},
    filter::Filter,
    geometry::Bounds,
    links::Signer,
    sanitise::Change,
    source::State,
};
use bytes::Bytes;
use std::{
    fmt::{self, Write},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// Which incarnation of the stream: one that was recreated has another, so that its sequences are not taken for those
/// of the old.
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

/// Reads a sequence that a client names: only digits, and the next number must be a sequence too.
pub fn sequence(text: &str) -> Option<u64> {
    let seq = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    seq.filter(|seq| *seq < u64::MAX)
}

/// A sequence, and when the message that has it was stored, where that is known.
///
/// A server that loses its newest messages gives their sequences to others: the moment tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The sequence of the message in the stream.
    pub seq: u64,
    /// In unix milliseconds.
    pub stored_unix_ms: Option<i64>,
}

impl Mark {
    /// A sequence of which no more is known.
    pub fn bare(seq: u64) -> Self {
        Self { seq, stored_unix_ms: None }
    }

    /// The mark of a message that was stored at this moment, in unix milliseconds.
    pub fn of(seq: u64, stored_unix_ms: i64) -> Self {
        Self { seq, stored_unix_ms: Some(stored_unix_ms) }
    }

    /// The later of two.
    pub fn max(self, other: Self) -> Self {
        if other.seq > self.seq { other } else { self }
    }
}

/// The place of a change: `<epoch>.<moment of storage>-<stream sequence>`, the first two in hex; without the
/// moment where it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId {
    /// The incarnation of the stream.
    pub epoch: Epoch,
    /// The place in it.
    pub mark: Mark,
}

impl EventId {
    /// A sequence of which no more is known.
    pub fn bare(epoch: &Epoch, seq: u64) -> Self {
        Self { epoch: epoch.clone(), mark: Mark::bare(seq) }
    }

    /// Reads an id; `None` for anything that is not of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, seq) = text.split_once('-')?;
        let (epoch, moment) = place.split_once('.').map_or((place, None), |(epoch, moment)| (epoch, Some(moment)));
        let is_hex =
            |text: &str, max: usize| (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        let seq = sequence(seq)?;
        let moment = match moment {
            None => None,
            Some(moment) => Some(is_hex(moment, 15).then(|| i64::from_str_radix(moment, 16).ok()).flatten()?),
        };
        is_hex(epoch, 32).then(|| Self { epoch: Epoch(epoch.into()), mark: Mark { seq, stored_unix_ms: moment } })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark.stored_unix_ms {
            Some(moment) => write!(f, "{}.{moment:x}-{}", self.epoch, self.mark.seq),
            None => write!(f, "{}-{}", self.epoch, self.mark.seq),
        }
    }
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Server-sent events over HTTP.
    Sse,
    /// A WebSocket, which can also change its filter.
    Ws,
}

impl Channel {
    /// The channel's name in labels of metrics.
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

    /// The keep-alive: a comment in SSE, with the id of all that was seen. Without an id the client's own
    /// stays.
    pub fn heartbeat(id: &str, source: State, unix_ms: i64) -> Self {
        let (state, age) = (source.as_str(), source.age.as_secs_f64());
        let of_id = if id.is_empty() { String::new() } else { format!("id: {id}\n") };
        let sse = format!(": heartbeat source={state} age={age:.1}\n{of_id}\n").into();
        let data = format!(r#"{{"source":"{state}","age_seconds":{age:.1}}}"#);
        Self { sse, ws: ws_text(&ws_envelope("heartbeat", id, &data, unix_ms)) }
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

/// Notices to a client besides changes: why it does not have everything, or may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The stream no longer has it.
    Expired,
    /// Newer states of the same markers took its place.
    Conflated,
    /// The stream is another one.
    Reset,
    /// The stream is not heard: what is new does not come.
    SourceAway,
    /// It is heard again.
    SourceBack,
}

impl Notice {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Expired, Self::Conflated, Self::Reset, Self::SourceAway, Self::SourceBack];

    /// The word on the wire and the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Conflated => "conflated",
            Self::Reset => "reset",
            Self::SourceAway => "source_away",
            Self::SourceBack => "source_back",
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
    State { feature: Box<Feature>, before: Before, left: OnceLock<Frames>, bare: OnceLock<Frames> },
    Removed(Key),
    Notice(Notice),
}

impl Subject {
    fn of_state(feature: Box<Feature>, before: Before) -> Self {
        Self::State { feature, before, left: OnceLock::new(), bare: OnceLock::new() }
    }
}

/// Whose eyes an event is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// A reader that may not read evidence: links are left out.
    #[default]
    Picture,
    /// A reader that may.
    Evidence,
}

/// One notice for clients.
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
            Change::State(feature) => Subject::of_state(feature, before),
            Change::Removed(key) => Subject::Removed(key),
        };
        Self::encoded(subject, id.mark.seq, id.to_string(), stored_unix_ms, signer)
    }

    fn encoded(subject: Subject, seq: u64, id: String, stored_unix_ms: i64, signer: &Signer) -> Self {
        let (name, data, link_made) = match &subject {
            Subject::State { feature, .. } => {
                let mut data = String::with_capacity(512);
                feature.write(Some(signer), &mut data);
                (feature.key.kind.as_str(), data, feature.evidence_id.as_ref().map(|_| Instant::now()))
            }
            Subject::Removed(key) => ("remove", removed(key), None),
            Subject::Notice(_) => unreachable!("notices are made whole"),
        };
        let frames = Frames::new(name, &id, &data, stored_unix_ms);
        Self { seq, stored_unix_ms, id, frames, link_made, subject }
    }

    /// Reports that `missing` messages up to `to` are gone or were skipped. `from` is the first of them. Carries no id:
    /// a client that is disconnected now resumes where it was.
    pub fn gap(reason: Notice, from: &EventId, to: &EventId, missing: u64, unix_ms: i64) -> Self {
        let data = format!(r#"{{"reason":"{}","from":"{from}","to":"{to}","missing":{missing}}}"#, reason.as_str());
        Self::notice_of("gap", reason, to.mark.seq, &data, unix_ms)
    }

    /// Reports that the stream is another one than the client knows, and that everything in it follows.
    pub fn reset(epoch: &Epoch, unix_ms: i64) -> Self {
        let id = EventId::bare(epoch, 0);
        Self::gap(Notice::Reset, &id, &id, 0, unix_ms)
    }

    /// Reports whether the stream is heard. Carries no id either.
    pub fn source(source: State, unix_ms: i64) -> Self {
        let (name, notice) = if source.is_away { ("stale", Notice::SourceAway) } else { ("fresh", Notice::SourceBack) };
        let data = format!(r#"{{"reason":"{}","age_seconds":{:.1}}}"#, notice.as_str(), source.age.as_secs_f64());
        Self::notice_of(name, notice, 0, &data, unix_ms)
    }

    fn notice_of(name: &str, notice: Notice, seq: u64, data: &str, unix_ms: i64) -> Self {
        let frames = Frames::new(name, "", data, unix_ms);
        let subject = Subject::Notice(notice);
        Self { seq, stored_unix_ms: unix_ms, id: String::new(), frames, link_made: None, subject }
    }

    /// The marker or zone, of which a newer state takes the place of this one. `None` for notices.
    pub fn key(&self) -> Option<&Key> {
        match &self.subject {
            Subject::State { feature, .. } => Some(&feature.key),
            Subject::Removed(key) => Some(key),
            Subject::Notice(_) => None,
        }
    }

    /// The state, if it is one.
    pub fn feature(&self) -> Option<&Feature> {
        match &self.subject {
            Subject::State { feature, .. } => Some(feature),
            _ => None,
        }
    }

    /// The notice, if it is not a change.
    pub fn notice(&self) -> Option<Notice> {
        match self.subject {
            Subject::Notice(notice) => Some(notice),
            _ => None,
        }
    }

    /// What a client with this filter gets of it, if anything. One that knew a marker which has left its area gets a
    /// removal, and one that may not read evidence gets no link.
    pub fn frame(&self, channel: Channel, filter: Option<&Filter>, sight: Sight) -> Option<&Bytes> {
        let Some(filter) = filter else { return Some(self.seen_by(sight).of(channel)) };
        let frames = match &self.subject {
            Subject::Notice(_) => &self.frames,
            Subject::Removed(key) if filter.names(key) => &self.frames,
            Subject::State { feature, .. } if filter.takes(&feature.key, feature.bounds(), feature.severity) => {
                self.seen_by(sight)
            }
            Subject::State { feature, before, left, .. } if filter.names(&feature.key) => {
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

    /// The frames with or without a link. Most events have none, and are the same bytes for everybody.
    fn seen_by(&self, sight: Sight) -> &Frames {
        let (Subject::State { feature, bare, .. }, Sight::Picture, Some(_)) = (&self.subject, sight, self.link_made)
        else {
            return &self.frames;
        };
        bare.get_or_init(|| {
            let mut data = String::with_capacity(512);
            feature.write(None, &mut data);
            Frames::new(feature.key.kind.as_str(), &self.id, &data, self.stored_unix_ms)
        })
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
        let subject = Subject::of_state(feature.clone(), before.clone());
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
        let id = EventId { epoch: Epoch::of(1_000_000), mark: Mark::of(7, 0x1a2b) };
        Event::of_change(change, before, &id, 1_700_000_000_123, &signer)
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let epoch = Epoch::of(1_700_000_000_123_456_789);
        let id = EventId { epoch: epoch.clone(), mark: Mark::of(42, 1_700_000_000_123) };
        for id in [id, EventId::bare(&epoch, 42)] {
            assert_eq!(EventId::parse(&id.to_string()), Some(id));
        }
        for other in [
            "a.-1",
            ".a-1",
            "a.g-1",
            "a.1.2-1",
            "a.ffffffffffffffff-1",
            "",
            "-",
            "a-",
            "-1",
            "a-+1",
            "a-1-2",
            "g-1",
            "a-99999999999999999999999",
            "7",
        ] {
            assert_eq!(EventId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn both_transports_say_the_same() {
        let event = event(r#"{"title":"T","coordinates":[1,2]}"#, Before::Nothing);
        let sse = std::str::from_utf8(event.frame(Channel::Sse, None, Sight::Evidence).unwrap()).unwrap();
        let data = sse.strip_prefix("event: marker\nid: 3e8.1a2b-7\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        let ws = event.frame(Channel::Ws, None, Sight::Evidence).unwrap();
        let envelope: serde_json::Value = serde_json::from_slice(&ws[4..]).unwrap();
        assert_eq!(envelope["data"], serde_json::from_str::<serde_json::Value>(data).unwrap());
        assert_eq!((envelope["event"].as_str(), envelope["id"].as_str()), (Some("marker"), Some("3e8.1a2b-7")));
        assert_eq!(envelope["ts"].as_f64(), Some(1_700_000_000.123));
    }

    #[test]
    fn heartbeats_tell_how_the_source_is() {
        let away = State { is_away: true, age: Duration::from_millis(7_250) };
        let frames = Frames::heartbeat("3e8-7", away, 0);
        assert_eq!(&frames.of(Channel::Sse)[..], b": heartbeat source=away age=7.2\nid: 3e8-7\n\n");
        let envelope: serde_json::Value = serde_json::from_slice(&frames.of(Channel::Ws)[2..]).unwrap();
        assert_eq!(envelope["data"], serde_json::json!({"source": "away", "age_seconds": 7.2}));
        assert_eq!(&Frames::heartbeat("", away, 0).of(Channel::Sse)[..], b": heartbeat source=away age=7.2\n\n");
    }

    #[test]
    fn a_link_is_only_in_the_frames_of_those_who_may_read_evidence() {
        let linked = event(r#"{"title":"T","coordinates":[5,5],"evidence_id":"photo"}"#, Before::Nothing);
        let bare = event(r#"{"title":"T","coordinates":[5,5]}"#, Before::Nothing);
        for channel in [Channel::Sse, Channel::Ws] {
            let text =
                |event: &Event, sight| String::from_utf8_lossy(event.frame(channel, None, sight).unwrap()).into_owned();
            let with = text(&linked, Sight::Evidence);
            assert!(with.contains(r#""evidence_link":"/v1/evidence/~a%2Fphoto."#), "{with}");
            // Besides the length in front of a WebSocket's frame.
            let tail = |text: String| text[text.find("{\"type\"").unwrap()..].to_owned();
            assert_eq!(tail(text(&linked, Sight::Picture)), tail(text(&bare, Sight::Evidence)));
            assert_eq!(text(&bare, Sight::Picture), text(&bare, Sight::Evidence));
        }
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
            let frame = event.frame(Channel::Sse, Some(&filter), Sight::Evidence).cloned();
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

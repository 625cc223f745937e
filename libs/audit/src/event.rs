//! The event that carries an entry: a CloudEvent in structured JSON. The orchestrator publishes what it has chained; other
//! services publish what the orchestrator is to take in.

use crate::chain::{Chained, Hash};
use crate::entry::{Entry, ORCHESTRATOR};
use serde::{Deserialize, Serialize};

/// What the subjects of all audit events begin with.
pub const EVENTS_PREFIX: &str = "agentforge.events.audit.";

/// Where entries of a service go; `scope` is the mission or ENV. Those of the orchestrator are chained; what others
/// report is to be taken in, and has a prefix of its own.
pub fn subject(service: &str, scope: &str, operation: &str) -> String {
    let reported = if service == ORCHESTRATOR { "" } else { "reported." };
    format!("{EVENTS_PREFIX}{reported}{}.{}.{}", token(service), token(scope), token(operation))
}

fn token(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    if text.is_empty() { "_".into() } else { text.chars().map(safe).collect() }
}

/// The event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `1.0`.
    pub specversion: String,
    /// The entry's id, which is also the message's.
    pub id: String,
    /// `/agentforge/<scope>`.
    pub source: String,
    /// `agentforge.audit.<operation>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object, as kind and id.
    pub subject: String,
    /// RFC 3339.
    pub time: String,
    /// `application/json`.
    pub datacontenttype: String,
    /// X-Request-ID of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requestid: Option<String>,
    /// The entry, and where it is in the chain.
    pub data: EventData,
}

/// An entry as an event carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventData {
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// Its chain; absent while it is not chained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<i64>,
    /// Its place there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<i64>,
    /// The hash of the entry before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Hash>,
    /// Its hash: an anchor, wherever the event is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
}

impl Event {
    /// Of an entry that is to be taken in.
    pub fn of(entry: Entry, scope: &str) -> Self {
        let entry = entry.bounded();
        let object = entry.object_id.as_deref().unwrap_or_default();
        Self {
            specversion: "1.0".into(),
            id: entry.id.clone(),
            source: format!("/agentforge/{scope}"),
            kind: format!("agentforge.audit.{}", entry.operation),
            subject: format!("{}/{object}", entry.object_kind),
            time: entry.at.timestamp().to_string(),
            datacontenttype: "application/json".into(),
            requestid: entry.request_id.clone(),
            data: EventData { entry, chain: None, place: None, previous: None, hash: None },
        }
    }

    /// Of an entry in its place.
    pub fn chained(chained: &Chained, scope: &str) -> Self {
        let mut event = Self::of(chained.entry.clone(), scope);
        event.data.chain = Some(chained.chain);
        event.data.place = Some(chained.place);
        event.data.previous = Some(chained.previous);
        event.data.hash = Some(chained.hash);
        event
    }

    /// As JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are always JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Head;
    use agentforge_proto::time::Micros;

    #[test]
    fn an_event_comes_back_and_its_subject_is_three_tokens() {
        let chained = Head::first(0).append(Entry::own("A", &serde_json::json!({"n": 1}), Micros(1)));
        let event = Event::chained(&chained, "dev");
        assert_eq!(serde_json::from_slice::<Event>(&event.to_json()).unwrap(), event);
        assert_eq!(subject("broadcaster", "de v.>", "A.*"), "agentforge.events.audit.reported.broadcaster.de_v__.A__");
        assert_eq!(subject("orchestrator", "dev", "A"), "agentforge.events.audit.orchestrator.dev.A");
    }
}

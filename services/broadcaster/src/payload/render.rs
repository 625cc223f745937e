//! The body of a request, by the endpoint's format. Pure.

use crate::payload::{
    cards::{discord, slack, teams},
    event::Event,
    metadata::EventMetadata,
    notice::notice,
};
use agentforge_config::Parse;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use std::fmt;

/// How an event is put into a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An envelope with id, type, timestamp, subject, and the event as `data`.
    #[default]
    Json,
    /// The event's bytes as they came.
    Raw,
    /// A CloudEvent in structured JSON; one that is none yet is put into one.
    CloudEvents,
    /// A message for an incoming webhook of Slack.
    Slack,
    /// An adaptive card for a workflow of Microsoft Teams.
    Teams,
    /// A message for a webhook of Discord.
    Discord,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Json, Self::Raw, Self::CloudEvents, Self::Slack, Self::Teams, Self::Discord];

    /// The word in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Raw => "raw",
            Self::CloudEvents => "cloudevents",
            Self::Slack => "slack",
            Self::Teams => "teams",
            Self::Discord => "discord",
        }
    }

    /// A message that people read; its service knows no signatures.
    pub const fn is_for_people(self) -> bool {
        matches!(self, Self::Slack | Self::Teams | Self::Discord)
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => "application/cloudevents+json",
            _ => "application/json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Parse for Format {
    fn parse(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.as_str() == s).ok_or_else(|| "is not a format".to_owned())
    }
    fn placeholder() -> Self {
        Self::Json
    }
}

/// Makes the body. `bytes` is what `event` was read from.
pub fn render(format: Format, event: &Event<'_>, about: EventMetadata<'_>, bytes: &Bytes) -> Bytes {
    match format {
        Format::Raw => bytes.clone(),
        Format::CloudEvents if event.is_cloud_event => bytes.clone(),
        Format::Json => envelope(event, about, bytes),
        Format::CloudEvents => cloud_event(event, about, bytes),
        Format::Slack => written(&slack::message(&notice(event, about.subject, bytes), about)),
        Format::Teams => written(&teams::message(&notice(event, about.subject, bytes), about)),
        Format::Discord => written(&discord::message(&notice(event, about.subject, bytes), about)),
    }
}

fn kind<'a>(event: &'a Event<'_>, about: EventMetadata<'a>) -> &'a str {
    event.kind.as_deref().unwrap_or(about.subject)
}

fn envelope(event: &Event<'_>, about: EventMetadata<'_>, bytes: &[u8]) -> Bytes {
    #[derive(Serialize)]
    struct Envelope<'a> {
        id: &'a str,
        #[serde(rename = "type")]
        kind: &'a str,
        timestamp: Timestamp,
        subject: &'a str,
        data: Option<&'a RawValue>,
    }
    let EventMetadata { id, subject, at } = about;
    written(&Envelope { id, kind: kind(event, about), timestamp: at, subject, data: raw(bytes) })
}

fn cloud_event(event: &Event<'_>, about: EventMetadata<'_>, bytes: &[u8]) -> Bytes {
    #[derive(Serialize)]
    struct CloudEvent<'a> {
        specversion: &'a str,
        id: &'a str,
        source: &'a str,
        #[serde(rename = "type")]
        kind: &'a str,
        subject: &'a str,
        time: Timestamp,
        datacontenttype: &'a str,
        data: Option<&'a RawValue>,
    }
    let EventMetadata { id, subject, at } = about;
    written(&CloudEvent {
        specversion: "1.0",
        id,
        source: "/agentforge/broadcaster",
        kind: kind(event, about),
        subject,
        time: at,
        datacontenttype: "application/json",
        data: raw(bytes),
    })
}

/// The bytes were read as JSON before; null replaces what cannot be.
fn raw(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}

fn written(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::event::parse;
    use serde_json::{Value, json};

    const TODO: &str = r#"{"id":"7","text":"Buy <milk> & *eggs* @all","status":"open","n":1.10,"action":"created"}"#;
    const CLOUD: &str = r#"{"specversion":"1.0","type":"agentforge.job.dead","id":"a","data":{"job_id":"j"}}"#;

    fn body(format: Format, event: &'static str) -> (Value, String) {
        let bytes = Bytes::from_static(event.as_bytes());
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        let about = EventMetadata { id: "msg_1", subject: "todos.events", at };
        let made = render(format, &parse(&bytes).unwrap(), about, &bytes);
        let text = String::from_utf8(made.to_vec()).unwrap();
        (serde_json::from_str(&text).unwrap(), text)
    }

    #[test]
    fn an_envelope_holds_the_event_byte_for_byte() {
        let (value, text) = body(Format::Json, TODO);
        assert_eq!((&value["id"], &value["type"]), (&json!("msg_1"), &json!("todo.created")));
        assert_eq!(value["timestamp"], "2026-01-02T03:04:05Z");
        assert!(text.ends_with(&format!("\"data\":{TODO}}}")), "{text}");
        assert_eq!(body(Format::Raw, TODO).1, TODO);
        assert_eq!(body(Format::Json, "[1]").0["type"], "todos.events");
    }

    #[test]
    fn a_cloud_event_stays_and_others_become_one() {
        assert_eq!(body(Format::CloudEvents, CLOUD).1, CLOUD);
        let (value, _) = body(Format::CloudEvents, TODO);
        assert_eq!((&value["specversion"], &value["type"]), (&json!("1.0"), &json!("todo.created")));
        assert_eq!((&value["id"], &value["data"]["text"]), (&json!("msg_1"), &json!("Buy <milk> & *eggs* @all")));
    }

    #[test]
    fn chats_get_cards() {
        let (slack, _) = body(Format::Slack, TODO);
        assert_eq!(slack["blocks"][0]["text"]["text"], "todo.created");
        assert!(slack["text"].as_str().unwrap().contains("text: Buy &lt;milk&gt; &amp; *eggs* @all"), "{slack}");
        let (discord, _) = body(Format::Discord, TODO);
        assert_eq!(discord["embeds"][0]["title"], "todo\\.created");
        let (teams, _) = body(Format::Teams, CLOUD);
        assert_eq!(teams["attachments"][0]["contentType"], "application/vnd.microsoft.card.adaptive");
    }
}

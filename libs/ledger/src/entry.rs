//! One line of the ledger. A contract: fields are only added.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The kinds of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The daemon started.
    Startup,
    /// The link came up.
    Connected,
    /// The link went down.
    Disconnected,
    /// A file was stored; the stream did not have its content.
    Replayed,
    /// A file's content was in the stream already.
    Duplicate,
    /// A file can never be sent and was moved to `quarantine/`.
    Quarantined,
    /// Something went wrong that did not pass by itself.
    Error,
    /// What a crash or a power loss left was repaired. With a file: the stream has it because this daemon sent it
    /// before it was stopped.
    Recovered,
}

impl Event {
    /// The word in the line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Replayed => "replayed",
            Self::Duplicate => "duplicate",
            Self::Quarantined => "quarantined",
            Self::Error => "error",
            Self::Recovered => "recovered",
        }
    }
}

/// One line. What an event has no use for is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When the line was written.
    pub ts: Timestamp,
    /// What happened to the file.
    pub event: Event,
    /// The file's name below the replay directory, percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Size of the file's content, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// SHA-256 of its content, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The id that it was published with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msg_id: Option<String>,
    /// The stream that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Its place there; of a duplicate, that of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The JetStream domain of that stream, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// How often it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// In the first line of a file of the ledger: the file that has the line before, empty at the very beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// SHA-256 of the line before, in hex; zeros before the first.
    pub prev: String,
}

impl Entry {
    /// An entry of now about no file. The writer sets time and `prev`.
    pub fn note(event: Event, detail: impl Into<String>) -> Self {
        Self {
            ts: Timestamp::UNIX_EPOCH,
            event,
            file: None,
            bytes: None,
            sha256: None,
            msg_id: None,
            stream: None,
            seq: None,
            domain: None,
            attempts: None,
            after: None,
            detail: Some(detail.into()),
            prev: String::new(),
        }
    }

    /// Whether a file's bytes are in the stream by this line.
    pub const fn is_delivery(&self) -> bool {
        match self.event {
            Event::Replayed | Event::Duplicate => true,
            Event::Recovered => self.seq.is_some(),
            _ => false,
        }
    }
}

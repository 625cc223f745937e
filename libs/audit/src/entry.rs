//! One entry: who did what, to what, when, and with which outcome. Everything in it is bounded.

use agentforge_proto::time::Micros;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use uuid::Uuid;

/// The outcome of what was done as asked; any other is the code of the refusal.
pub const OK: &str = "ok";
/// The outcome of an entry that is stored before anything is done. When it is refused then, another entry follows.
pub const ASKED: &str = "asked";
/// The surface and principal of what the orchestrator does by itself.
pub const ORCHESTRATOR: &str = "orchestrator";
/// The operation of an entry that names the heads of all chains.
pub const CHECKPOINT: &str = "AuditCheckpoint";
/// The operation of an entry that says up to where a chain was pruned.
pub const PRUNE: &str = "PruneAudit";
/// Longest text of a field, bytes; more is cut.
pub const TEXT_MAX_BYTES: usize = 256;
/// Longest detail, bytes; a longer one is left out, and its length is noted.
pub const DETAIL_MAX_BYTES: usize = 4 * 1024;

/// Who asks a service.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The name of its token.
    pub principal: &'a str,
    /// Its role.
    pub role: &'a str,
    /// Where its connection comes from.
    pub address: Option<IpAddr>,
    /// X-Request-ID.
    pub request_id: Option<&'a str>,
}

/// What is recorded of one call, or of several equal ones that share a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// UUID; by it an entry that arrives again is known.
    pub id: String,
    /// When it was decided.
    pub at: Micros,
    /// Where it was asked: rest, grpc, or the name of a service.
    pub surface: String,
    /// The name of the caller's token.
    pub principal: String,
    /// The caller's role.
    pub role: String,
    /// The address that the connection came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// X-Request-ID of the call; of the first, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What was asked, by its name in the API.
    pub operation: String,
    /// The kind of thing that it is about: job, schedule, operation …
    pub object_kind: String,
    /// Its id; absent where there are several, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
    /// `ok`, or the code of the refusal.
    pub outcome: String,
    /// How many equal calls it stands for.
    pub calls: u32,
    /// What else is known, as JSON text of an object: before and after, counts. Never a secret or a payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Entry {
    /// An entry of what the orchestrator does by itself.
    pub fn own(operation: &str, detail: &serde_json::Value, at: Micros) -> Self {
        Self {
            id: Self::new_id(),
            at,
            surface: ORCHESTRATOR.into(),
            principal: ORCHESTRATOR.into(),
            role: ORCHESTRATOR.into(),
            address: None,
            request_id: None,
            operation: operation.into(),
            object_kind: "audit".into(),
            object_id: None,
            outcome: OK.into(),
            calls: 1,
            detail: Some(detail.to_string()),
        }
    }

    /// An entry of what a service is asked, before it is done.
    pub fn asked(service: &str, operation: &str, by: &Asker<'_>) -> Self {
        Self {
            id: Self::new_id(),
            at: Micros::now(),
            surface: service.into(),
            principal: by.principal.into(),
            role: by.role.into(),
            address: by.address.map(|a| a.to_canonical().to_string()),
            request_id: by.request_id.map(str::to_owned),
            operation: operation.into(),
            object_kind: String::new(),
            object_id: None,
            outcome: ASKED.into(),
            calls: 1,
            detail: None,
        }
    }

    /// An id for a new entry.
    pub fn new_id() -> String {
        Uuid::now_v7().to_string()
    }

    /// The same entry about this thing.
    #[must_use]
    pub fn about(mut self, kind: &str, id: Option<String>) -> Self {
        (self.object_kind, self.object_id) = (kind.into(), id);
        self
    }

    /// The same entry with this outcome.
    #[must_use]
    pub fn ended(mut self, outcome: &str) -> Self {
        self.outcome = outcome.into();
        self
    }

    /// The same entry with more detail.
    #[must_use]
    pub fn with(mut self, detail: &serde_json::Value) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// The same entry with how many things it was about.
    #[must_use]
    pub fn counted(self, count: u64) -> Self {
        let detail = self.detail.as_deref().and_then(|detail| serde_json::from_str(detail).ok());
        let mut detail = detail.unwrap_or_else(|| serde_json::json!({}));
        detail["count"] = count.into();
        self.with(&detail)
    }

    /// Whether `other` differs only in when and by which request: then one entry stands for both.
    pub fn is_like(&self, other: &Self) -> bool {
        let fields = |e: &Self| {
            let who = [e.surface.clone(), e.principal.clone(), e.role.clone(), e.operation.clone()];
            (who, e.address.clone(), e.object_kind.clone(), e.object_id.clone(), e.outcome.clone(), e.detail.clone())
        };
        fields(self) == fields(other)
    }

    /// Within its bounds, without what a database or a terminal cannot take.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [
            &mut self.id,
            &mut self.surface,
            &mut self.principal,
            &mut self.role,
            &mut self.operation,
            &mut self.object_kind,
            &mut self.outcome,
        ] {
            bound(text);
        }
        for text in [&mut self.address, &mut self.request_id, &mut self.object_id].into_iter().flatten() {
            bound(text);
        }
        if let Some(bytes) = self.detail.as_ref().map(String::len).filter(|bytes| *bytes > DETAIL_MAX_BYTES) {
            self.detail = Some(format!("{{\"omitted_bytes\":{bytes}}}"));
        }
        if let Some(detail) = &mut self.detail {
            // JSON text has none but escaped.
            detail.retain(|c| !c.is_control());
        }
        self
    }
}

fn bound(text: &mut String) {
    text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
    if text.contains(char::is_control) {
        *text = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_bounded_whatever_a_caller_sends() {
        let mut entry = Entry::own("A", &serde_json::json!({"x": "y".repeat(5_000)}), Micros(1));
        entry.principal = "a\0b\u{1b}[31m".into();
        entry.object_id = Some("é".repeat(1_000));
        let entry = entry.bounded();
        assert_eq!(entry.principal, "a\u{fffd}b\u{fffd}[31m");
        assert_eq!(entry.object_id.unwrap().len(), TEXT_MAX_BYTES);
        assert_eq!(entry.detail.as_deref(), Some("{\"omitted_bytes\":5008}"));
    }

    #[test]
    fn equal_calls_are_known_by_all_but_their_time_and_request() {
        let one = Entry::own("A", &serde_json::json!({}), Micros(1));
        let again = Entry { at: Micros(2), id: Entry::new_id(), request_id: Some("r".into()), ..one.clone() };
        assert!(one.is_like(&again));
        assert!(!one.is_like(&Entry { outcome: "conflict".into(), ..again.clone() }));
        assert!(!one.is_like(&Entry { address: Some("10.0.0.1".into()), ..again }));
    }
}

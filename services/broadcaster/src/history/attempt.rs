//! One attempt as it is shown and kept, and a filter for attempts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// The end of one attempt to deliver an event to an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// Counts attempts of this process, from 1.
    pub n: u64,
    /// Of which process.
    #[serde(default)]
    pub replica: String,
    /// When it ended.
    pub at: Timestamp,
    /// The name of the endpoint that was called.
    pub endpoint: String,
    /// What the endpoint got as `webhook-id`; the same for all attempts of one event.
    pub webhook_id: String,
    /// Where the event was published.
    pub subject: String,
    /// Which attempt, from 1; 0 for one that was none (set aside, or no JSON).
    pub attempt: u32,
    /// delivered, retried, dead, disabled or set_aside.
    #[schema(value_type = String)]
    pub outcome: Cow<'static, str>,
    /// The HTTP status of the endpoint's answer; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// From the request to the end of the answer, in milliseconds.
    pub took_ms: f64,
    /// Short name of what went wrong, as in the labels of metrics; absent when nothing did.
    #[serde(default, skip_serializing_if = "is_nothing")]
    #[schema(value_type = String)]
    pub reason: Cow<'static, str>,
    /// What went wrong, for people; absent when nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
}

fn is_nothing(text: &str) -> bool {
    text.is_empty()
}

/// Which attempts are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this endpoint.
    pub endpoint: Option<String>,
    /// With this `webhook-id`.
    pub webhook_id: Option<String>,
    /// delivered, retried, dead, disabled, …
    pub outcome: Option<String>,
    /// Attempts that ended at this time or later.
    pub since: Option<Timestamp>,
    /// Attempts that ended at this time or earlier.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether it lets an attempt through.
    pub fn takes(&self, attempt: &Attempt) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&self.endpoint, &attempt.endpoint)
            && is(&self.webhook_id, &attempt.webhook_id)
            && is(&self.outcome, &attempt.outcome)
            && self.since.is_none_or(|since| attempt.at >= since)
            && self.until.is_none_or(|until| attempt.at <= until)
    }
}

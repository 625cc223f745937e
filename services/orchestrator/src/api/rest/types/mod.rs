//! JSON as REST reads and writes it: snake_case, the proto's names, every field always there.
//!
//! Shapes only. `args` and `result` are passed through byte for byte.

mod agents;
mod audit;
mod batch;
mod cancels;
mod dead_letters;
mod job;
mod jobs;
mod operations;
mod outbox;
mod outcome;
mod queues;
mod retries;
pub(crate) mod schedules;
mod sites;
mod slo;

pub use agents::{AgentList, AgentView};
pub use audit::{AuditChainEntries, AuditChainList, AuditList};
pub use batch::{Accepted, BatchAnswer, BatchItem, Refused};
pub use cancels::{CancelJobsBody, CancelView};
pub use dead_letters::{DeadLetterList, DeadLetterView, DiscardAnswer, DiscardBody, RedriveBody, RedriveView};
pub use job::{JobView, RetryPolicyBody, RetryPolicyView, SubmitBody, TemplateView};
pub use jobs::{AttemptList, AttemptView, JobList};
pub use operations::{OperationList, OperationView};
pub use outbox::{ParkedAnswer, ParkedBody, ParkedList, ParkedView};
pub use outcome::{ErrorView, OutputRefView};
pub use queues::{FoundJobs, JobCountsView, QueueList, QueueView};
pub use retries::{NotPutBackView, RetryBody, RetryJobsBody, RetryView};
pub use schedules::{
    NextRuns, RunBody, RunView, ScheduleBody, ScheduleChangeBody, ScheduleList, ScheduleView, SkippedTurnView,
};
pub use sites::{SiteList, SiteView, SpanView};
pub use slo::{BurnView, SloList, SloView};

use crate::error::Error;
use agentforge_proto::time::Micros;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::time::Duration;

/// A moment as JSON has it: RFC 3339 in UTC, always with microseconds, so that text sorts by time.
#[derive(Clone, Copy, Debug)]
pub struct Moment(pub(crate) Micros);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{:.6}", self.0.timestamp()))
    }
}

impl From<Micros> for Moment {
    fn from(m: Micros) -> Self {
        Self(m)
    }
}

pub(crate) fn moment(m: Option<Micros>) -> Option<Moment> {
    m.map(Moment)
}

/// Reads an RFC 3339 moment of a request.
pub(crate) fn parse_moment(field: &'static str, text: Option<&str>) -> Result<Option<Micros>, Error> {
    text.filter(|t| !t.is_empty())
        .map(|t| {
            let wrong = |e| {
                Error::field(field, format!("{field} is {t:?}; expected RFC 3339, such as 2026-01-31T08:00:00Z: {e}"))
            };
            t.parse::<jiff::Timestamp>().map(Micros::from).map_err(wrong)
        })
        .transpose()
}

/// Reads a duration of a request, as text or in milliseconds.
pub(crate) fn parse_span(
    field: &'static str,
    text: Option<&str>,
    millis: Option<u64>,
) -> Result<Option<Duration>, Error> {
    match (text.filter(|t| !t.is_empty()), millis) {
        (Some(_), Some(_)) => Err(Error::field(field, format!("give {field} or {field}_ms, not both"))),
        (Some(text), None) => agentforge_config::parse_duration(text)
            .map(Some)
            .map_err(|e| Error::field(field, format!("{field} {text:?} {e}"))),
        (None, ms) => Ok(ms.map(Duration::from_millis)),
    }
}

/// JSON text of the store, passed on as it is.
pub(crate) fn raw(what: &'static str, text: String) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(text).map_err(|e| Error::from(crate::store::Error::Corrupt { what, problem: e.to_string() }))
}

//! Ways back as JSON.

use super::{parse_moment, parse_span};
use crate::app::{JobQuery, RetrySpec};
use crate::error::Error;
use crate::model::State;
use crate::operation::NotPutBack;
use crate::store::Times;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How one job is put back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetryJobRequest, example = json!({"deadline_in": "1h"}))]
pub struct RetryBody {
    /// The job ends expired so long from now, such as `1h`. Absent: as long as it had before.
    #[schema(pattern = "^([1-9][0-9]{0,2}(s|m|h)|([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9])d)$")]
    pub deadline_in: Option<String>,
    /// The same in milliseconds.
    #[schema(minimum = 1, maximum = 31_536_000_000_u64)]
    pub deadline_in_ms: Option<u64>,
}

/// Which jobs to put back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetryJobsRequest, example = json!({"states": ["expired"], "queue": "default", "dry_run": true}))]
pub struct RetryJobsBody {
    /// These jobs; or, when empty, all that the filters let through: then `states` must be given.
    #[serde(default)]
    #[schema(max_items = 10000)]
    pub job_ids: Vec<String>,
    /// In any of these states: failed, dead, cancelled, expired.
    #[serde(default)]
    pub states: Vec<String>,
    /// Of this mission.
    pub mission: Option<String>,
    /// Of this queue.
    pub queue: Option<String>,
    /// Of this tool.
    pub tool: Option<String>,
    /// Submitted by the caller of this name.
    pub submitted_by: Option<String>,
    /// Whose error, written `class: message`, has this text, of at most 256 bytes; ASCII letters are alike in both cases.
    pub error: Option<String>,
    /// With all of these labels, `key=value`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Accepted at this moment or later (RFC 3339).
    #[schema(format = DateTime)]
    pub created_after: Option<String>,
    /// Accepted before it (RFC 3339).
    #[schema(format = DateTime)]
    pub created_before: Option<String>,
    /// Final since this moment or later (RFC 3339).
    #[schema(format = DateTime)]
    pub finished_after: Option<String>,
    /// Final before it (RFC 3339).
    #[schema(format = DateTime)]
    pub finished_before: Option<String>,
    /// Jobs a second, at most 1000; the default is 50.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1000)]
    pub rate: f64,
    /// At most so many; the default is 10000.
    #[serde(default)]
    pub limit: u32,
    /// Only count what would be put back.
    #[serde(default)]
    pub dry_run: bool,
    /// Each job ends expired so long after it was put back, such as `1h`. Absent: as long as it had before.
    #[schema(pattern = "^([1-9][0-9]{0,2}(s|m|h)|([1-9][0-9]?|[12][0-9]{2}|3[0-5][0-9])d)$")]
    pub deadline_in: Option<String>,
    /// The same in milliseconds.
    #[schema(minimum = 1, maximum = 31_536_000_000_u64)]
    pub deadline_in_ms: Option<u64>,
    /// Continue without this connection: the answer is 202 and names the operation to ask about. `Prefer:
    /// respond-async` says the same.
    #[serde(default)]
    pub r#async: bool,
}

impl RetryJobsBody {
    pub(crate) fn into_spec(self) -> Result<RetrySpec, Error> {
        let state = |w: &String| {
            State::from_word(w).ok_or_else(|| {
                Error::field("states", format!("there is no state {w:?}; expected failed, dead, cancelled or expired"))
            })
        };
        Ok(RetrySpec {
            filter: JobQuery {
                mission: self.mission,
                queue: self.queue,
                tool: self.tool,
                states: self.states.iter().map(state).collect::<Result<_, _>>()?,
                submitted_by: self.submitted_by,
                error: self.error,
                labels: self.labels,
                times: Times {
                    created_after: parse_moment("created_after", self.created_after.as_deref())?,
                    created_before: parse_moment("created_before", self.created_before.as_deref())?,
                    finished_after: parse_moment("finished_after", self.finished_after.as_deref())?,
                    finished_before: parse_moment("finished_before", self.finished_before.as_deref())?,
                },
                ..JobQuery::default()
            },
            job_ids: self.job_ids,
            rate: self.rate,
            limit: self.limit,
            dry_run: self.dry_run,
            deadline_in: parse_span("deadline_in", self.deadline_in.as_deref(), self.deadline_in_ms)?,
        })
    }
}

/// How far a retry of many is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetryProgress)]
pub struct RetryView {
    /// Found to be in a state that is put back.
    pub(crate) matched: u64,
    /// Put back; 0 in a dry run.
    pub(crate) retried: u64,
    /// Not put back.
    pub(crate) skipped: u64,
    /// Whether this is the last word.
    pub(crate) done: bool,
    /// Why jobs were skipped, at most 100 of a call; of a line, those since the line before.
    pub(crate) not_put_back: Vec<NotPutBackView>,
}

/// A job to which nothing was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotPutBack)]
pub struct NotPutBackView {
    /// The job.
    pub(crate) job_id: String,
    /// Why not, for people.
    pub(crate) reason: String,
}

impl From<NotPutBack> for NotPutBackView {
    fn from(n: NotPutBack) -> Self {
        Self { job_id: n.job.to_string(), reason: n.reason }
    }
}

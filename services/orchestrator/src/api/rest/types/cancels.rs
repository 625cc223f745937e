//! Cancels of many jobs as JSON.

use super::{NotPutBackView, parse_moment};
use crate::app::{CancelSpec, JobQuery};
use crate::error::Error;
use crate::model::State;
use crate::store::Times;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which jobs to cancel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CancelJobsRequest, example = json!({"states": ["queued"], "queue": "default", "dry_run": true}))]
pub struct CancelJobsBody {
    /// These jobs; or, when empty, all that the filters let through: then `states` must be given.
    #[serde(default)]
    #[schema(max_items = 10000)]
    pub job_ids: Vec<String>,
    /// In any of these states: accepted, queued, running.
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
    /// With all of these labels, `key=value`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Accepted at this moment or later (RFC 3339).
    #[schema(format = DateTime)]
    pub created_after: Option<String>,
    /// Accepted before it (RFC 3339).
    #[schema(format = DateTime)]
    pub created_before: Option<String>,
    /// Jobs per second, at most 1000, which is the default.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1000)]
    pub rate: f64,
    /// At most this many; the default is 10000.
    #[serde(default)]
    pub limit: u32,
    /// Only count what would be cancelled.
    #[serde(default)]
    pub dry_run: bool,
    /// Continue without this connection: the answer is 202 and names the operation to ask about. `Prefer:
    /// respond-async` says the same.
    #[serde(default)]
    pub r#async: bool,
}

impl CancelJobsBody {
    pub(crate) fn into_spec(self) -> Result<CancelSpec, Error> {
        let state = |w: &String| {
            let unknown =
                || Error::field("states", format!("there is no state {w:?}; expected accepted, queued or running"));
            State::from_word(w).ok_or_else(unknown)
        };
        Ok(CancelSpec {
            filter: JobQuery {
                mission: self.mission,
                queue: self.queue,
                tool: self.tool,
                states: self.states.iter().map(state).collect::<Result<_, _>>()?,
                submitted_by: self.submitted_by,
                labels: self.labels,
                times: Times {
                    created_after: parse_moment("created_after", self.created_after.as_deref())?,
                    created_before: parse_moment("created_before", self.created_before.as_deref())?,
                    ..Times::default()
                },
                ..JobQuery::default()
            },
            job_ids: self.job_ids,
            rate: self.rate,
            limit: self.limit,
            dry_run: self.dry_run,
        })
    }
}

/// How far a cancel of many is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CancelProgress)]
pub struct CancelView {
    /// Found to be in a state that is cancelled.
    pub(crate) matched: u64,
    /// Cancelled; 0 in a dry run.
    pub(crate) cancelled: u64,
    /// Not cancelled.
    pub(crate) skipped: u64,
    /// Whether this is the last word.
    pub(crate) done: bool,
    /// Why jobs were skipped, at most 100 of a call; of a line, those since the line before.
    pub(crate) not_cancelled: Vec<NotPutBackView>,
}

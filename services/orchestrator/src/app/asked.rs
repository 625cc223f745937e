//! Which jobs and dead letters a caller asks for, and what the store is asked.

use super::page_limit;
use crate::error::Error;
use crate::model::State;
use crate::store::{JobFilter, Times};
use agentforge_message_id::{Mission, Queue, ToolName};
use serde::{Deserialize, Serialize};

/// Bytes of the text that errors are searched for, at most.
const ERROR_TEXT_MAX: usize = 256;

/// Which jobs to list, as asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JobQuery {
    /// Jobs of this mission; empty or none: of all that the database has.
    pub mission: Option<String>,
    /// Jobs of this queue; empty or none: of all.
    pub queue: Option<String>,
    /// Jobs that run this tool; empty or none: any.
    pub tool: Option<String>,
    /// Jobs in any of these states; empty: in all.
    pub states: Vec<State>,
    /// Jobs that the token of this name submitted; empty or none: any.
    pub submitted_by: Option<String>,
    /// Jobs that ended without success, and whose error has this text; empty or none: any.
    pub error: Option<String>,
    /// `key=value`, all of them.
    pub labels: Vec<String>,
    /// Accepted and final in these times.
    pub times: Times,
    /// Size of a page, up to [`PAGE_MAX`](super::PAGE_MAX); 0: [`PAGE_DEFAULT`](super::PAGE_DEFAULT).
    pub limit: u32,
    /// Where the page before ended, as it said; none: the newest job.
    pub cursor: Option<String>,
}

/// Which dead letters to list, as asked.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterQuery {
    /// Letters of jobs of this mission; empty or none: of all.
    pub mission: Option<String>,
    /// Letters of jobs of this queue; empty or none: of all.
    pub queue: Option<String>,
    /// Letters with this [`DeadReason`](crate::model::DeadReason), by its word; empty or none: any.
    pub reason: Option<String>,
    /// Those put back too.
    pub include_redriven: bool,
    /// Size of a page, up to [`PAGE_MAX`](super::PAGE_MAX); 0: [`PAGE_DEFAULT`](super::PAGE_DEFAULT).
    pub limit: u32,
    /// Where the page before ended, as it said; none: the newest letter.
    pub cursor: Option<String>,
}

impl JobQuery {
    /// What the store is asked.
    ///
    /// # Errors
    /// `invalid_argument`: names the field.
    pub(super) fn filter(&self) -> Result<JobFilter, Error> {
        let labels = self
            .labels
            .iter()
            .map(|l| {
                l.split_once('=')
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .ok_or_else(|| Error::field("label", format!("label {l:?} is not key=value")))
            })
            .collect::<Result<_, _>>()?;
        let wrong = |field| move |e: agentforge_message_id::NameError| Error::field(field, e.to_string());
        Ok(JobFilter {
            mission: some(self.mission.as_ref()).map(Mission::new).transpose().map_err(wrong("mission"))?,
            queue: some(self.queue.as_ref()).map(Queue::new).transpose().map_err(wrong("queue"))?,
            tool: some(self.tool.as_ref()).map(ToolName::new).transpose().map_err(wrong("tool"))?,
            states: self.states.clone(),
            submitted_by: some(self.submitted_by.as_ref()).map(str::to_owned),
            error: error_text(self.error.as_ref())?,
            labels,
            times: self.times,
            before: row_cursor(self.cursor.as_ref())?,
            limit: page_limit(self.limit)?,
        })
    }
}

pub(super) fn some(s: Option<&String>) -> Option<&str> {
    s.map(String::as_str).filter(|s| !s.is_empty())
}

pub(super) fn row_cursor(cursor: Option<&String>) -> Result<Option<i64>, Error> {
    some(cursor)
        .map(|c| {
            c.parse().map_err(|_| Error::field("cursor", "cursor is not one that a listing gave; start without it"))
        })
        .transpose()
}

fn error_text(text: Option<&String>) -> Result<Option<String>, Error> {
    let text = some(text);
    if text.is_some_and(|t| t.len() > ERROR_TEXT_MAX) {
        return Err(Error::field("error", format!("error is text of at most {ERROR_TEXT_MAX} bytes")));
    }
    Ok(text.map(str::to_owned))
}

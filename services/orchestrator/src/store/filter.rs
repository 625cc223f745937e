//! Lists: which rows are asked for, and a page of them. Newest first, under bounds of rows and bytes.

use crate::model::State;
use agentforge_message_id::{Mission, Queue, ToolName};
use agentforge_proto::time::Micros;
use serde::{Deserialize, Serialize};

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What was found; may be fewer than asked for, with more to come.
    pub items: Vec<T>,
    /// Where the next page continues (`before` of its filter); `None` at the end of the list.
    pub next: Option<i64>,
}

/// Rows that one step through dead letters reads, at most. About 50 ms.
pub const SCAN_ROWS_MAX: i64 = 50_000;
/// A page or a claim ends early once its rows hold so many bytes of arguments and results.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which jobs to list. Newest first.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Jobs of this mission; `None`: of all.
    pub mission: Option<Mission>,
    /// Jobs of this queue; `None`: of all.
    pub queue: Option<Queue>,
    /// Jobs that run this tool; `None`: any.
    pub tool: Option<ToolName>,
    /// Any of these; empty: all.
    pub states: Vec<State>,
    /// Jobs that this principal submitted; `None`: any.
    pub submitted_by: Option<String>,
    /// Jobs that ended without success, and whose error, written `class: message`, has this text; ASCII letters are alike
    /// in both cases. `None`: any.
    pub error: Option<String>,
    /// All of these.
    pub labels: Vec<(String, String)>,
    /// Accepted and final in these times.
    pub times: Times,
    /// Rows before this one (the last row number of the page before).
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Bounds in time; what is not set does not bind.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// Accepted at this moment or later.
    pub created_after: Option<Micros>,
    /// Accepted before it.
    pub created_before: Option<Micros>,
    /// Final since this moment or later.
    pub finished_after: Option<Micros>,
    /// Final before it.
    pub finished_before: Option<Micros>,
}

/// Which dead letters to list. Newest first.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    /// Letters of this mission; `None`: of all.
    pub mission: Option<String>,
    /// Letters of this queue; `None`: of all.
    pub queue: Option<String>,
    /// Letters with this [`DeadReason`](crate::model::DeadReason), by its word; `None`: any.
    pub reason: Option<String>,
    /// Those put back too.
    pub include_redriven: bool,
    /// Rows before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

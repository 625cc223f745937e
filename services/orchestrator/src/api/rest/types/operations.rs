//! Operations as JSON.

use super::{Moment, NotPutBackView, moment};
use crate::operation::Operation;
use serde::Serialize;
use utoipa::ToSchema;

/// A retry, redrive or cancel of many jobs that continues without its caller.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operation)]
pub struct OperationView {
    /// Its id.
    pub(crate) id: String,
    /// retry, redrive or cancel.
    kind: &'static str,
    /// waiting, running, succeeded, failed or cancelled; the last three are final.
    state: &'static str,
    /// Whether it was asked to stop.
    cancel_asked: bool,
    /// Jobs that it is about; null before they are counted, and where they are very many.
    total: Option<u64>,
    /// Found to match.
    matched: u64,
    /// Put back.
    put_back: u64,
    /// Of a cancel: stopped.
    cancelled: u64,
    /// Neither put back nor stopped.
    skipped: u64,
    /// Why jobs were skipped, at most 100.
    not_put_back: Vec<NotPutBackView>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    /// When it began.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Moment>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Moment>,
    /// Why it failed; while it runs, what it waits for.
    error: Option<String>,
    /// The name of the token that started it.
    started_by: Option<String>,
}

impl From<Operation> for OperationView {
    fn from(o: Operation) -> Self {
        Self {
            id: o.id.to_string(),
            kind: o.kind.as_str(),
            state: o.state.as_str(),
            cancel_asked: o.cancel_asked,
            total: o.progress.total,
            matched: o.progress.matched,
            put_back: o.progress.put_back,
            cancelled: o.progress.cancelled,
            skipped: o.progress.skipped,
            not_put_back: o.progress.reasons.into_iter().map(NotPutBackView::from).collect(),
            created_at: o.created_at.into(),
            started_at: moment(o.progress.started_at),
            ended_at: moment(o.progress.ended_at),
            error: o.progress.error,
            started_by: o.started_by,
        }
    }
}

/// A page of operations, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationList {
    /// The operations.
    pub(crate) operations: Vec<OperationView>,
    /// Give it as `cursor` to get the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

//! How requests come to the commit loop: lanes, each with a queue and a group under way.

use crate::caller::Caller;
use crate::error::Error;
use crate::model::NewJob;
use crate::store::{Changed, Submitted};
use crate::transition::{Change, Ignored};
use agentforge_audit::Entry;
use agentforge_message_id::JobId;
use agentforge_proto::bus::Rejected;
use tokio::sync::{mpsc, oneshot};

/// Urgent requests that may wait in one lane; beyond it senders wait.
const URGENT_QUEUE: usize = 4_096;

pub(super) type Answer<T> = oneshot::Sender<Result<T, Error>>;
/// What became of changes, index by index.
pub(super) type Changes = Vec<Result<Changed, Ignored>>;

pub(super) enum Request {
    Submits(Vec<NewJob>, Caller, Answer<Vec<Submitted>>),
    Changes(Vec<(JobId, Change)>, Vec<Rejected>, Option<Caller>, Answer<Changes>),
    Entry(Box<Entry>, Answer<()>),
}

/// Groups that are committed one after the other.
pub(super) struct Lane {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) is_busy: bool,
}

impl Lane {
    pub(super) fn new() -> (mpsc::Sender<Request>, Self) {
        let (sender, requests) = mpsc::channel(URGENT_QUEUE);
        (sender, Self { requests, is_busy: false })
    }
}

/// Which lane a group belongs to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Of {
    Changes,
    Submits,
}

pub(super) async fn ask<T>(
    lane: &mpsc::Sender<Request>,
    request: impl FnOnce(Answer<T>) -> Request,
) -> Result<T, Error> {
    let gone = || Error::new(crate::error::Code::Unavailable, "the orchestrator is stopping; nothing was stored");
    let (tx, rx) = oneshot::channel();
    lane.send(request(tx)).await.map_err(|_| gone())?;
    rx.await.map_err(|_| gone())?
}

/// The next submission of a lane of their own, once that lane is free.
pub(super) async fn submitted(lane: &mut Option<Lane>) -> Option<Request> {
    match lane {
        Some(lane) if !lane.is_busy => lane.requests.recv().await,
        _ => std::future::pending().await,
    }
}

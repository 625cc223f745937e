//! Group commit: many submissions and changes share one transaction and one fsync.
//!
//! Owns the only path on which jobs are written. A caller is answered after the commit, never before. Urgent writes
//! (with a waiting caller) start a commit at once; marks, which have no waiting caller, gather first (see `marks`). While
//! a commit runs, the next group gathers. Senders of marks wait when there are too many: a lost mark means a repeated
//! publish.
//!
//! A lane is one group after the other. Where the database commits side by side, submissions have a lane of their own: a
//! new job is in no other group before it is stored, so what happens to one job still happens in one order.

mod hand_on;
mod lanes;

use self::lanes::{Answer, Changes, Lane, Of, Request, ask, submitted};
use super::marks::{self, Lazy, MARKS_MAX, Marks, Reported};
use super::{Handoffs, JobWatchers, OutboxGauge};
use crate::caller::Caller;
use crate::deletions::Deletions;
use crate::error::Error;
use crate::metrics;
use crate::model::NewJob;
use crate::store::{
    self, Changed, CommitContext, Committed, EventMask, Group, OutboxRow, Outgoing, Owner, Store, Subject, Submit,
    Submitted,
};
use crate::transition::{Backoff, Change, Ignored};
use agentforge_audit::Entry;
use agentforge_message_id::{JobId, Mission};
use agentforge_proto::bus::Rejected;
use agentforge_proto::time::Micros;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Writes of one commit, at most.
const GROUP_MAX: usize = 512;
/// Marks that may wait in addition to those that are kept; beyond it their senders wait.
const LAZY_QUEUE: usize = MARKS_MAX;
/// Until marks that could not be stored are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What the committer needs to know.
#[derive(Clone, Debug)]
pub struct CommitterConfig {
    /// Waits before a failed attempt is published again, where the job has none of its own.
    pub backoff: Backoff,
    /// In whose name rows are claimed.
    pub owner: Owner,
    /// How long claims hold.
    pub claim_for: Duration,
    /// Which states are published as events.
    pub events: EventMask,
    /// Whose jobs these are.
    pub mission: Mission,
}

impl CommitterConfig {
    fn context(&self, now: Micros) -> CommitContext<'_> {
        let Self { backoff, owner, claim_for, events, mission } = self;
        CommitContext { now, backoff, owner, claim_until: now.plus(*claim_for), events: *events, mission }
    }
}

/// Cheap to clone; all clones feed one loop.
#[derive(Clone)]
pub struct Committer {
    submits: mpsc::Sender<Request>,
    changes: mpsc::Sender<Request>,
    lazy: mpsc::Sender<Lazy>,
    config: Arc<CommitterConfig>,
}

/// The loop's side; give it to [`CommitLoop::run`].
pub struct CommitLoop {
    /// Changes and marks; submissions too, where they have no lane of their own.
    changes: Lane,
    submits: Option<Lane>,
    lazy: mpsc::Receiver<Lazy>,
    store: Arc<dyn Store>,
    config: Arc<CommitterConfig>,
    watchers: JobWatchers,
    gauge: OutboxGauge,
    jobs: Handoffs<Outgoing>,
    outbox: Handoffs<OutboxRow>,
    orphans: Deletions,
    /// Groups under way that leave their rows of the outbox in the store.
    left_under_way: usize,
}

/// Where the loop hands work on.
pub(crate) struct Outlets {
    pub(crate) watchers: JobWatchers,
    pub(crate) gauge: OutboxGauge,
    /// Claimed jobs, to the relay.
    pub(crate) jobs: Handoffs<Outgoing>,
    /// Claimed outbox rows, to the relay.
    pub(crate) outbox: Handoffs<OutboxRow>,
    /// Messages on `swarm_jobs` whose job is final: to be deleted.
    pub(crate) orphans: Deletions,
}

impl Committer {
    pub(crate) fn new(store: Arc<dyn Store>, config: CommitterConfig, outlets: Outlets) -> (Self, CommitLoop) {
        let (changes, changes_lane) = Lane::new();
        let (submits, submits_lane) = Some(Lane::new()).filter(|_| store.is_shared()).unzip();
        let submits = submits.unwrap_or_else(|| changes.clone());
        let (lazy, lazy_rx) = mpsc::channel(LAZY_QUEUE);
        let Outlets { watchers, gauge, jobs, outbox, orphans } = outlets;
        let config = Arc::new(config);
        let own = Arc::clone(&config);
        let run = CommitLoop {
            changes: changes_lane,
            submits: submits_lane,
            lazy: lazy_rx,
            store,
            config: own,
            watchers,
            gauge,
            jobs,
            outbox,
            orphans,
            left_under_way: 0,
        };
        (Self { submits, changes, lazy, config }, run)
    }

    /// How a commit outside of the loop is to be made.
    pub(crate) fn context(&self, now: Micros) -> CommitContext<'_> {
        self.config.context(now)
    }

    /// Stores a job that `caller` submits. Answers after the commit.
    ///
    /// # Errors
    /// `unavailable` when nothing was stored.
    pub async fn submit(&self, job: NewJob, caller: &Caller) -> Result<Submitted, Error> {
        let stored = self.submit_all(vec![job], caller).await?.pop();
        stored.ok_or_else(|| Error::new(crate::error::Code::Internal, "the commit has no answer for this job"))
    }

    /// Stores jobs that `caller` submits together, in one commit; some dozens at most, which is more than a commit gathers
    /// otherwise. Answers after it, index by index.
    ///
    /// # Errors
    /// `unavailable` when nothing was stored.
    pub async fn submit_all(&self, jobs: Vec<NewJob>, caller: &Caller) -> Result<Vec<Submitted>, Error> {
        ask(&self.submits, |answer| Request::Submits(jobs, caller.clone(), answer)).await
    }

    /// Stores an entry of the audit log that is about no write. Answers after the commit.
    ///
    /// # Errors
    /// `unavailable` when it was not stored.
    pub async fn record(&self, entry: Entry) -> Result<(), Error> {
        ask(&self.changes, |answer| Request::Entry(Box::new(entry), answer)).await
    }

    /// Applies changes that `caller` asks for. Answers after the commit, index by index.
    ///
    /// # Errors
    /// `unavailable` when nothing was stored.
    pub async fn change_for(
        &self,
        caller: &Caller,
        changes: Vec<(JobId, Change)>,
    ) -> Result<Vec<Result<Changed, Ignored>>, Error> {
        ask(&self.changes, |answer| Request::Changes(changes, vec![], Some(caller.clone()), answer)).await
    }

    /// Applies changes that no caller asks for, and records messages that were not jobs. Answers after the commit, index by index.
    ///
    /// # Errors
    /// `unavailable` when nothing was stored.
    pub async fn change(
        &self,
        changes: Vec<(JobId, Change)>,
        rejects: Vec<Rejected>,
    ) -> Result<Vec<Result<Changed, Ignored>>, Error> {
        ask(&self.changes, |answer| Request::Changes(changes, rejects, None, answer)).await
    }

    /// Adds a mark; waits while there are too many. When the loop has ended, the next owner of the row's claim adds it
    /// again.
    pub async fn mark(&self, mark: Lazy) {
        if self.lazy.send(mark).await.is_err() {
            debug!("a mark arrived after the last commit; repeated when the claim expires");
        }
    }
}

/// One group being gathered: writes on one side, who waits for them on the other.
#[derive(Default)]
struct Gathered {
    group: Group,
    submit_answers: Vec<(usize, Answer<Vec<Submitted>>)>,
    change_answers: Vec<(usize, Answer<Changes>)>,
    entry_answers: Vec<Answer<()>>,
}

/// Who waits for a commit that is under way, and what it holds.
struct Waiting {
    of: Of,
    submit_answers: Vec<(usize, Answer<Vec<Submitted>>)>,
    change_answers: Vec<(usize, Answer<Changes>)>,
    entry_answers: Vec<Answer<()>>,
    /// The marks in it, as they were kept: to be kept again if it fails for now.
    marks: Vec<Lazy>,
    /// Of the marks that became changes: the job, and where the stream has its message, or 0.
    lazy: Vec<(JobId, i64)>,
    /// Attempts whose end it reports.
    reported: Reported,
    claims_outbox: bool,
    calls: u64,
    now: Micros,
    begun: Instant,
}

type Commits = FuturesUnordered<BoxFuture<'static, (Waiting, Result<Committed, store::Error>)>>;

impl CommitLoop {
    /// Runs until every [`Committer`] is dropped or `stop` fires and nothing waits.
    pub async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let mut kept = Marks::default();
        let mut under_way = Commits::new();
        loop {
            let (mut changes, mut submits) = (Gathered::default(), Gathered::default());
            let may_change = !self.changes.is_busy;
            let due = kept.due().filter(|_| may_change);
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((waiting, committed)) = under_way.next(), if !under_way.is_empty() => {
                    self.settle(waiting, committed, &mut kept, stop.is_cancelled());
                    continue;
                }
                Some(r) = self.changes.requests.recv(), if may_change => self.gather(&mut changes, r),
                Some(r) = submitted(&mut self.submits) => self.gather(&mut submits, r),
                Some(l) = self.lazy.recv(), if !kept.are_full() => {
                    kept.add(l);
                    self.take_marks(&mut kept);
                    let is_due = kept.due().is_some_and(|at| at <= Instant::now());
                    if !may_change || !is_due && !stop.is_cancelled() {
                        continue;
                    }
                }
                () = timer => {}
                () = stop.cancelled(), if under_way.is_empty() => {}
            }
            while submits.group.len() < GROUP_MAX
                && let Some(lane) = self.submits.as_mut().filter(|lane| !lane.is_busy)
                && let Ok(r) = lane.requests.try_recv()
            {
                self.gather(&mut submits, r);
            }
            if !submits.group.is_empty() {
                under_way.push(self.begin(Of::Submits, submits, vec![], Reported::new(), 0));
            }
            if may_change {
                while changes.group.len() < GROUP_MAX {
                    let Ok(r) = self.changes.requests.try_recv() else { break };
                    self.gather(&mut changes, r);
                }
                self.take_marks(&mut kept);
                let reported = marks::reported(&changes.group.changes);
                let lazy_from = changes.group.changes.len();
                let marks = kept.board(&mut changes.group, &reported, stop.is_cancelled());
                if !changes.group.is_empty() {
                    under_way.push(self.begin(Of::Changes, changes, marks, reported, lazy_from));
                    continue;
                }
            }
            if stop.is_cancelled() && under_way.is_empty() && kept.due().is_none() {
                return;
            }
        }
    }

    fn take_marks(&mut self, kept: &mut Marks) {
        while !kept.are_full() {
            let Ok(mark) = self.lazy.try_recv() else { break };
            kept.add(mark);
        }
    }

    fn gather(&self, g: &mut Gathered, request: Request) {
        match request {
            Request::Submits(jobs, caller, answer) => {
                let backlog = self.jobs.backlog();
                let may_claim = backlog.may_claim();
                g.submit_answers.push((jobs.len(), answer));
                for job in jobs {
                    let claim = may_claim && backlog.reason(job.queue.as_str()).is_none();
                    g.group.acts.push((caller.clone(), Subject::Submit(g.group.submits.len())));
                    g.group.submits.push(Submit { job, claim });
                }
            }
            Request::Entry(entry, answer) => {
                g.group.entries.push(*entry);
                g.entry_answers.push(answer);
            }
            Request::Changes(changes, rejects, caller, answer) => {
                g.change_answers.push((changes.len(), answer));
                if let Some(caller) = caller {
                    let first = g.group.changes.len();
                    let subjects = (first..first + changes.len()).map(Subject::Change);
                    g.group.acts.extend(subjects.map(|subject| (caller.clone(), subject)));
                }
                g.group.changes.extend(changes);
                g.group.rejects.extend(rejects);
            }
        }
    }

    fn begin(
        &mut self,
        of: Of,
        g: Gathered,
        marks: Vec<Lazy>,
        reported: Reported,
        lazy_from: usize,
    ) -> BoxFuture<'static, (Waiting, Result<Committed, store::Error>)> {
        let Gathered { mut group, submit_answers, change_answers, entry_answers } = g;
        self.set_busy(of, true);
        self.gauge.begin_commit();
        let now = Micros::now();
        // What is handed over must not overtake what an earlier group leaves in the store.
        let claims_outbox = self.left_under_way == 0 && self.outbox.backlog().may_claim();
        self.left_under_way += usize::from(!claims_outbox);
        group.claim_outbox = claims_outbox;
        let stream_seq = |change: &Change| if let Change::Queued { stream_seq, .. } = change { *stream_seq } else { 0 };
        let lazy = group.changes[lazy_from..].iter().map(|(id, change)| (*id, stream_seq(change))).collect();
        self.make_room(of, group.submits.len() >= GROUP_MAX / 2);
        let calls = (group.acts.len() + group.entries.len()) as u64;
        metrics::COMMIT_GROUP_SIZE.observe(&[], group.len() as f64);
        let begun = Instant::now();
        let waiting = Waiting {
            of,
            submit_answers,
            change_answers,
            entry_answers,
            marks,
            lazy,
            reported,
            claims_outbox,
            calls,
            now,
            begun,
        };
        let (store, config) = (Arc::clone(&self.store), Arc::clone(&self.config));
        async move { (waiting, store.commit(group, config.context(now)).await) }.boxed()
    }

    /// While whole groups of submissions come, and workers have enough to do, they go first: a burst is accepted at once and
    /// published when it is over, or after `YIELD_MAX` of the relay.
    fn make_room(&self, of: Of, is_flooded: bool) {
        if of == Of::Changes && self.submits.is_some() {
            return;
        }
        let yields = is_flooded && self.jobs.backlog().has_enough_at_workers();
        self.jobs.backlog().set_yielding(yields);
        self.outbox.backlog().set_yielding(yields);
    }

    fn set_busy(&mut self, of: Of, is_busy: bool) {
        match (of, &mut self.submits) {
            (Of::Submits, Some(lane)) => lane.is_busy = is_busy,
            _ => self.changes.is_busy = is_busy,
        }
    }

    fn settle(&mut self, w: Waiting, committed: Result<Committed, store::Error>, kept: &mut Marks, is_stopping: bool) {
        let of = w.of;
        self.answer(w, committed, kept, is_stopping);
        self.gauge.committed();
        // Nothing comes: nothing else ends the yielding.
        if self.submits.as_ref().unwrap_or(&self.changes).requests.is_empty() {
            self.make_room(of, false);
        }
    }

    fn answer(&mut self, w: Waiting, committed: Result<Committed, store::Error>, kept: &mut Marks, is_stopping: bool) {
        self.set_busy(w.of, false);
        self.left_under_way -= usize::from(!w.claims_outbox);
        match committed {
            Ok(committed) => {
                metrics::DB_QUERY_DURATION.observe(&["commit"], w.begun.elapsed().as_secs_f64());
                metrics::AUDIT_CALLS.add(&[], w.calls);
                kept.forget(&w.reported);
                for a in w.entry_answers {
                    let _ = a.send(Ok(()));
                }
                self.hand_on(committed, w.submit_answers, w.change_answers, &w.lazy, w.claims_outbox, w.now);
            }
            Err(e) => {
                metrics::DB_ERRORS.inc(&[]);
                warn!(error = &e as &dyn std::error::Error, "a group could not be committed; its callers get an error");
                let again = || Error::of_store(&e);
                for (_, a) in w.submit_answers {
                    let _ = a.send(Err(again()));
                }
                for (_, a) in w.change_answers {
                    let _ = a.send(Err(again()));
                }
                for a in w.entry_answers {
                    let _ = a.send(Err(again()));
                }
                // Refused: a commit without the marks may do. Claims end, and the marks are made again.
                if e.is_retryable() && !is_stopping {
                    kept.put_back(w.marks, Instant::now() + RETRY_INTERVAL);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

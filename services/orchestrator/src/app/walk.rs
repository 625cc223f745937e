//! A walk over jobs that are put back or stopped: page by page, at a rate, from where it was left.

use super::App;
use super::jobs::stopped;
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::model::State;
use crate::operation::{NotPutBack, Position};
use crate::store::{DeadLetterFilter, JobFilter};
use crate::transition::{Change, Ignored};
use agentforge_message_id::JobId;
use agentforge_proto::time::Micros;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// Jobs read in one step.
pub(super) const PAGE: u32 = 100;
/// Jobs counted in one step of a dry run.
pub(super) const COUNT_PAGE: u32 = 1_000;
/// Pages that are counted before a walk, at most.
const COUNT_PAGES_MAX: u32 = 100;
/// Reasons reported in one walk; the rest is counted.
const REASONS_MAX: usize = 100;

/// How far a walk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Jobs that match, whether or not something was done to them.
    pub matched: u64,
    /// Jobs that are accepted again.
    pub put_back: u64,
    /// Jobs that were stopped.
    pub cancelled: u64,
    /// Neither: in no such state any more, or unknown.
    pub skipped: u64,
    /// Whether this is the last word.
    pub done: bool,
    /// Why jobs were skipped: those since the word before, at most 100 of a walk.
    pub reasons: Vec<NotPutBack>,
}

/// What is done to a job.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// Dead and failed ones are put back.
    Redrive,
    /// Every end without success is undone.
    Retry(Option<Duration>),
    /// What is open is stopped.
    Cancel {
        /// In whose name.
        by: String,
        /// Only in these states; empty: in any that is open.
        only: Arc<[State]>,
    },
}

impl How {
    pub(super) fn change(&self, at: Micros) -> Change {
        match self {
            Self::Redrive => Change::Redrive { at },
            Self::Retry(lifetime) => Change::Retry { at, lifetime: *lifetime },
            Self::Cancel { by, only } => Change::Cancel { at, by: Some(by.clone()), only: only.clone() },
        }
    }

    /// Whether it would do something to a job in this state.
    fn takes(&self, state: State) -> bool {
        match self {
            Self::Redrive | Self::Retry(_) => state.may_be_retried(),
            Self::Cancel { only, .. } => !state.is_final() && (only.is_empty() || only.contains(&state)),
        }
    }

    /// Why nothing is done to a job in this state.
    pub(super) fn reason(&self, state: State, ignored: Ignored) -> String {
        let word = state.as_str();
        match (self, ignored) {
            (_, Ignored::Unknown) => "there is no such job".into(),
            (Self::Cancel { .. }, _) if state.is_final() => format!("it is {word} already"),
            (Self::Cancel { .. }, _) => format!("it is {word} by now"),
            (_, Ignored::KeyTaken) => "its idempotency_key belongs to a newer job, which does the same work".into(),
            (_, _) if !state.is_final() => format!("it is {word}: it still runs, or was put back already"),
            (Self::Redrive, _) if state.may_be_retried() => {
                format!("it is {word} and no dead letter; a retry puts it back")
            }
            (_, _) => format!("it is {word}"),
        }
    }
}

/// Where the jobs of a walk come from.
pub(super) enum Source {
    /// They were named.
    Ids,
    /// Dead letters; none: all pages are read.
    Letters(Option<DeadLetterFilter>),
    /// Jobs; none: all pages are read.
    Jobs(Option<JobFilter>),
}

/// Jobs on their way back, or to their end.
pub(super) struct Walk {
    app: App,
    /// In whose name: each share's entry in the audit log has it.
    caller: Caller,
    /// Those that were read; of a listing with where they are in it.
    ids: VecDeque<(JobId, Option<i64>)>,
    source: Source,
    how: How,
    limit: u32,
    rate: f64,
    dry_run: bool,
    progress: Progress,
    position: Position,
    reasons_given: usize,
    over: bool,
}

impl Walk {
    /// At its beginning.
    pub(super) fn new(
        (app, caller): (App, Caller),
        source: Source,
        ids: VecDeque<JobId>,
        how: How,
        (rate, limit): (f64, u32),
        dry_run: bool,
    ) -> Self {
        let (progress, position) = (Progress::default(), Position::default());
        let ids = ids.into_iter().map(|id| (id, None)).collect();
        Self { app, caller, ids, source, how, limit, rate, dry_run, progress, position, reasons_given: 0, over: false }
    }

    /// Continues behind the last job that another one took.
    pub(super) fn resume(&mut self, position: Position, reasons_given: usize) {
        match &mut self.source {
            Source::Ids => _ = self.ids.drain(..self.ids.len().min(position.taken as usize)),
            Source::Letters(Some(filter)) => filter.before = position.before,
            Source::Jobs(Some(filter)) => filter.before = position.before,
            Source::Letters(None) | Source::Jobs(None) => {}
        }
        (self.position, self.reasons_given) = (position, reasons_given);
    }

    /// Where it is.
    pub(super) const fn position(&self) -> Position {
        self.position
    }

    /// What came of it since this was asked last.
    pub(super) fn take_progress(&mut self) -> Progress {
        std::mem::take(&mut self.progress)
    }

    /// How far it is, as it goes; it stops when this is not read any more.
    pub(super) fn progress(self) -> BoxStream<'static, Result<Progress, Error>> {
        stream::unfold(self, |w| async move { if w.over { None } else { Some(w.step().await) } }).boxed()
    }

    /// One tenth of a second's worth.
    pub(super) fn share(&self) -> usize {
        if self.dry_run { COUNT_PAGE as usize } else { ((self.rate / 10.0).ceil() as usize).clamp(1, 100) }
    }

    /// How long so many jobs may take.
    pub(super) fn pace(&self, taken: usize) -> Duration {
        Duration::from_secs_f64(taken as f64 / self.rate)
    }

    /// How many jobs it is about, where that can be counted in bounded time.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) async fn total(&self) -> Result<Option<u64>, Error> {
        let most = u64::from(self.limit);
        let mut found = self.ids.len() as u64;
        let mut letters = match &self.source {
            Source::Letters(Some(filter)) => Some(DeadLetterFilter { limit: COUNT_PAGE, ..filter.clone() }),
            _ => None,
        };
        let mut jobs = match &self.source {
            Source::Jobs(Some(filter)) => Some(JobFilter { limit: COUNT_PAGE, ..filter.clone() }),
            _ => None,
        };
        for _ in 0..COUNT_PAGES_MAX {
            let next = if let Some(filter) = &mut letters {
                let page = self.app.0.store.dead_letters(filter).await?;
                found += page.items.iter().filter(|d| d.job.is_some()).count() as u64;
                filter.before = page.next;
                page.next
            } else if let Some(filter) = &mut jobs {
                let page = self.app.0.store.jobs(filter).await?;
                found += page.items.len() as u64;
                filter.before = page.next;
                page.next
            } else {
                None
            };
            if next.is_none() || found >= most {
                return Ok(Some(found.min(most)));
            }
        }
        Ok(None)
    }

    /// One tenth of a second's worth, then a rest.
    async fn step(mut self) -> (Result<Progress, Error>, Self) {
        let begun = Instant::now();
        let outcome = self.one_share(self.share()).await;
        match outcome {
            Ok(None) => {
                self.over = true;
                self.progress.done = true;
            }
            Ok(Some(taken)) if !self.dry_run => {
                let pause = self.pace(taken).saturating_sub(begun.elapsed());
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.app.0.stopping.cancelled() => self.over = true,
                }
            }
            Ok(Some(_)) => {}
            Err(e) => {
                self.over = true;
                return (Err(e), self);
            }
        }
        let reasons = std::mem::take(&mut self.progress.reasons);
        (Ok(Progress { reasons, ..self.progress.clone() }), self)
    }

    /// How many were taken on; `None` at the end. After an error it can be called again: nothing is left out.
    pub(super) async fn one_share(&mut self, share: usize) -> Result<Option<usize>, Error> {
        let left = self.limit.saturating_sub(self.position.taken) as usize;
        if left == 0 {
            return Ok(None);
        }
        if self.ids.is_empty() && self.more().await? && self.ids.is_empty() {
            return Ok(Some(0));
        }
        let (ids, places): (Vec<JobId>, Vec<_>) = self.ids.iter().take(share.min(left)).copied().unzip();
        let Some(place) = places.last() else { return Ok(None) };
        let taken = ids.len();
        if self.dry_run {
            self.count(&ids).await?;
        } else {
            self.change(&ids).await?;
        }
        self.ids.drain(..taken);
        self.position.before = place.or(self.position.before);
        self.position.taken += u32::try_from(taken).unwrap_or(u32::MAX);
        Ok(Some(taken))
    }

    async fn change(&mut self, ids: &[JobId]) -> Result<(), Error> {
        let is_cancel = matches!(self.how, How::Cancel { .. });
        if !is_cancel {
            self.app.push_back_all()?;
        }
        let ids = self.in_reach(ids).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let change = self.how.change(Micros::now());
        let changes = ids.iter().map(|id| (*id, change.clone())).collect();
        let outcomes = self.app.0.committer.change_for(&self.caller, changes).await?;
        let mut refused = Vec::new();
        for (id, outcome) in ids.iter().zip(outcomes) {
            match outcome {
                Ok(changed) => {
                    self.progress.matched += 1;
                    if is_cancel {
                        self.progress.cancelled += 1;
                        self.app.0.cancels.send(stopped(&changed.job));
                    } else {
                        self.progress.put_back += 1;
                    }
                }
                Err(ignored) => refused.push((*id, ignored)),
            }
        }
        self.refuse(refused).await;
        Ok(())
    }

    /// Those that the caller may see. One that was named and is outside of its scopes does not exist for it.
    async fn in_reach(&mut self, ids: &[JobId]) -> Result<Vec<JobId>, Error> {
        if !self.app.is_scoped() {
            return Ok(ids.to_vec());
        }
        let mut within = Vec::with_capacity(ids.len());
        for id in ids {
            match self.app.stored(*id).await {
                Ok(_) => within.push(*id),
                Err(e) if e.code == Code::NotFound => {
                    self.progress.skipped += 1;
                    if self.reasons_given < REASONS_MAX {
                        self.reasons_given += 1;
                        let reason = self.how.reason(State::Accepted, Ignored::Unknown);
                        self.progress.reasons.push(NotPutBack { job: *id, reason });
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(within)
    }

    /// Reads the next candidates; whether there may be more behind them.
    async fn more(&mut self) -> Result<bool, Error> {
        let next = match &mut self.source {
            Source::Ids | Source::Letters(None) | Source::Jobs(None) => return Ok(false),
            Source::Letters(Some(filter)) => {
                let found = self.app.0.store.dead_letters(filter).await?;
                self.progress.skipped += found.items.iter().filter(|d| d.job.is_none()).count() as u64;
                self.ids.extend(found.items.iter().filter_map(|d| Some((d.job?, Some(d.seq)))));
                filter.before = found.next;
                found.next
            }
            Source::Jobs(Some(filter)) => {
                let found = self.app.0.store.jobs(filter).await?;
                let within = found.items.iter().filter(|job| self.app.has_job(job));
                self.ids.extend(within.map(|j| (j.id, Some(j.seq))));
                filter.before = found.next;
                found.next
            }
        };
        if next.is_none() {
            self.source = Source::Ids;
        }
        Ok(next.is_some())
    }

    async fn count(&mut self, ids: &[JobId]) -> Result<(), Error> {
        let ids = self.in_reach(ids).await?;
        let known = self.app.0.store.versions(&ids).await?;
        let known: HashMap<JobId, State> = known.into_iter().map(|(id, state, _)| (id, state)).collect();
        let mut refused = Vec::new();
        for id in ids {
            match known.get(&id) {
                Some(state) if self.how.takes(*state) => self.progress.matched += 1,
                Some(_) => refused.push((id, Ignored::Passed)),
                None => refused.push((id, Ignored::Unknown)),
            }
        }
        self.refuse(refused).await;
        Ok(())
    }

    /// Counts jobs to which nothing was done, and says why of the first of them. The others of their share are done
    /// already, so a database that does not answer now costs the reasons, and the share is not repeated.
    async fn refuse(&mut self, refused: Vec<(JobId, Ignored)>) {
        self.progress.skipped += refused.len() as u64;
        let space = REASONS_MAX.saturating_sub(self.reasons_given).min(refused.len());
        let given = &refused[..space];
        if given.is_empty() {
            return;
        }
        let ids: Vec<JobId> = given.iter().map(|(id, _)| *id).collect();
        let known = match self.app.0.store.versions(&ids).await {
            Ok(known) => known,
            Err(e) => {
                warn!(
                    jobs = ids.len(),
                    error = &e as &dyn std::error::Error,
                    "why nothing was done to jobs is unknown"
                );
                return;
            }
        };
        self.reasons_given += given.len();
        for (job, ignored) in given {
            let state = known.iter().find(|(id, ..)| id == job).map(|(_, state, _)| *state);
            // Unknown ids are reported regardless of the state, which is not known then.
            let ignored = if state.is_some() { *ignored } else { Ignored::Unknown };
            let reason = self.how.reason(state.unwrap_or(State::Accepted), ignored);
            self.progress.reasons.push(NotPutBack { job: *job, reason });
        }
    }
}

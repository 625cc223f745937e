//! Marks that wait for a commit: PubAcks without a waiting caller.
//!
//! A mark of a publish is an update of the job's row, and an event where those of `queued` are asked for. It says little
//! that lasts: most jobs end a moment later, and their end says the same. So marks wait for company, the longer the more
//! there are, and a mark whose attempt is reported meanwhile is never written. Until then the claim says who publishes:
//! a process that dies with marks in memory leaves claims that run out, and what is published again has the same id.
//!
//! A commit of many marks is one that callers wait for, so where commits are small a few of the oldest ride with each.

use crate::model::JobError;
use crate::store::{Group, Park};
use crate::transition::Change;
use agentforge_message_id::{Attempt, JobId};
use agentforge_proto::time::Micros;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Marks that are kept, at most.
pub(super) const MARKS_MAX: usize = 4_096;
/// Marks that one commit takes, at most: callers of the same commit wait for them.
const PER_COMMIT: usize = 1_024;
/// As few as these are written after [`SHORT`].
const FEW: usize = 64;
/// How long few marks wait: somebody may be looking at a job by itself.
const SHORT: Duration = Duration::from_millis(100);
/// Commits of as few writes are small; there are many of them in a second, or few jobs.
const SMALL: usize = 16;
/// So many marks ride with a small commit, at most...
const RIDERS: usize = 16;
/// ...that have waited for this long: the jobs that ran at once have ended.
const RIPE: Duration = Duration::from_millis(50);
/// How long many wait.
const LONG: Duration = Duration::from_secs(1);

/// A mark that no caller waits for.
#[derive(Debug)]
pub enum Lazy {
    /// The PubAck of an attempt came.
    Queued(JobId, Attempt, i64, Micros),
    /// An attempt can never be published.
    Refused(JobId, Attempt, Box<JobError>, Micros),
    /// The PubAck of an outbox row came.
    OutboxSent(i64),
    /// A row of the outbox can never be published.
    OutboxParked(Park),
}

/// Attempts whose reports a group holds.
pub(super) type Reported = HashSet<(JobId, Attempt)>;

/// The marks of one commit loop.
#[derive(Default)]
pub(super) struct Marks {
    /// With the moment in which they came.
    waiting: VecDeque<(Instant, Lazy)>,
    /// A commit with them failed: not before then again.
    not_before: Option<Instant>,
}

impl Marks {
    pub(super) fn add(&mut self, mark: Lazy) {
        self.waiting.push_back((Instant::now(), mark));
    }

    pub(super) fn are_full(&self) -> bool {
        self.waiting.len() >= MARKS_MAX
    }

    /// When they are to be written, at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let &(since, _) = self.waiting.front()?;
        let due = match self.waiting.len() {
            MARKS_MAX.. => since,
            0..=FEW => since + SHORT,
            _ => since + LONG,
        };
        Some(self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// Takes out what is to be written with a group, the oldest first, and adds it to the group without those of attempts
    /// that it reports. `all`: whether all are due, as when the process ends.
    pub(super) fn board(&mut self, group: &mut Group, reported: &Reported, all: bool) -> Vec<Lazy> {
        let now = Instant::now();
        let count = if all || self.due().is_some_and(|due| due <= now) {
            self.waiting.len().min(PER_COMMIT)
        } else if (1..=SMALL).contains(&group.len()) && self.not_before.is_none() {
            self.waiting.iter().take(RIDERS).take_while(|(since, _)| *since + RIPE <= now).count()
        } else {
            0
        };
        if count == 0 {
            return vec![];
        }
        let taken: Vec<Lazy> = self.waiting.drain(..count).map(|(_, mark)| mark).collect();
        self.not_before = None;
        for mark in taken.iter().filter(|mark| !is_superseded(mark, reported)) {
            match mark {
                &Lazy::Queued(id, attempt, stream_seq, at) => {
                    group.changes.push((id, Change::Queued { attempt, stream_seq, at }))
                }
                Lazy::Refused(id, attempt, error, at) => {
                    let change = Change::Refused { attempt: *attempt, error: error.clone(), at: *at };
                    group.changes.push((*id, change));
                }
                Lazy::OutboxSent(seq) => group.outbox_sent.push(*seq),
                Lazy::OutboxParked(park) => group.outbox_parked.push(park.clone()),
            }
        }
        taken
    }

    /// A commit with these failed for now.
    pub(super) fn put_back(&mut self, taken: Vec<Lazy>, not_before: Instant) {
        if taken.is_empty() {
            return;
        }
        let now = Instant::now();
        taken.into_iter().rev().for_each(|mark| self.waiting.push_front((now, mark)));
        self.not_before = Some(not_before);
    }

    /// A commit with these reports was made.
    pub(super) fn forget(&mut self, reported: &Reported) {
        if !reported.is_empty() {
            self.waiting.retain(|(_, mark)| !is_superseded(mark, reported));
        }
    }
}

/// Whether the end of the attempt says all that the mark would.
fn is_superseded(mark: &Lazy, reported: &Reported) -> bool {
    matches!(mark, Lazy::Queued(id, attempt, ..) if reported.contains(&(*id, *attempt)))
}

/// The attempts whose end a group reports.
pub(super) fn reported(changes: &[(JobId, Change)]) -> Reported {
    let ends = changes.iter().filter_map(|(id, change)| match change {
        Change::Finished(finished) => Some((*id, finished.attempt)),
        _ => None,
    });
    ends.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_message_id::AgentId;
    use agentforge_proto::bus::{Finished, Outcome, Success};
    use agentforge_proto::time::Micros;

    fn queued(id: JobId, attempt: Attempt) -> Lazy {
        Lazy::Queued(id, attempt, 1, Micros(1))
    }

    fn end(job: JobId, attempt: Attempt) -> (JobId, Change) {
        let outcome = Outcome::Succeeded(Success { output: None, output_ref: None, idempotent_replay: None });
        let finished = Finished {
            job,
            attempt,
            delivery: 1,
            worker: AgentId::new("w").unwrap(),
            started_at: Micros(1),
            finished_at: Micros(2),
            outcome,
            traceparent: None,
            request_id: None,
        };
        (job, Change::Finished(Box::new(finished)))
    }

    #[tokio::test(start_paused = true)]
    async fn many_wait_longer_than_few_and_none_waits_when_they_are_full() {
        let start = Instant::now();
        let mut marks = Marks::default();
        assert_eq!(marks.due(), None);
        for n in 1..=MARKS_MAX {
            marks.add(Lazy::OutboxSent(1));
            let waits = marks.due().unwrap() - start;
            let expected = if n <= FEW {
                SHORT
            } else if n < MARKS_MAX {
                LONG
            } else {
                Duration::ZERO
            };
            assert_eq!((waits, marks.are_full()), (expected, n == MARKS_MAX), "{n}");
        }
        let first = marks.board(&mut Group::default(), &Reported::new(), false);
        marks.put_back(first, start + Duration::from_millis(500));
        assert_eq!((marks.waiting.len(), marks.due().unwrap() - start), (MARKS_MAX, Duration::from_millis(500)));
        for left in (0..MARKS_MAX).step_by(PER_COMMIT).rev() {
            let mut group = Group::default();
            tokio::time::advance(LONG).await;
            marks.board(&mut group, &Reported::new(), false);
            assert_eq!((group.outbox_sent.len(), marks.waiting.len()), (PER_COMMIT, left));
            assert_eq!(marks.due().is_none(), left == 0, "the rest does not wait anew");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_ride_with_small_commits_and_no_commit_of_many_is_made() {
        let mut marks = Marks::default();
        let alone = |_: usize| Group::default();
        let with = |writes: usize| {
            let mut group = Group::default();
            group.changes.extend((0..writes).map(|_| end(JobId::generate(), Attempt::FIRST)));
            group
        };
        for n in 0..=FEW as i64 {
            marks.add(Lazy::OutboxSent(n));
        }
        let mut boarded = |mut group: Group| {
            marks.board(&mut group, &Reported::new(), false);
            group.outbox_sent
        };
        assert_eq!(boarded(with(1)), [0; 0], "they wait for company, or for their attempt's end");
        tokio::time::advance(RIPE).await;
        assert_eq!(boarded(alone(0)), [0; 0], "no commit is made for them yet");
        assert_eq!(boarded(with(SMALL + 1)), [0; 0], "nor do they ride with a large one");
        assert_eq!(boarded(with(SMALL)), (0..RIDERS as i64).collect::<Vec<_>>());
        assert_eq!(boarded(with(1)), (RIDERS as i64..2 * RIDERS as i64).collect::<Vec<_>>());
        tokio::time::advance(LONG).await;
        assert_eq!(boarded(alone(0)).len(), FEW + 1 - 2 * RIDERS, "all that is due");
    }

    #[tokio::test]
    async fn the_end_of_an_attempt_takes_the_place_of_its_own_mark_only() {
        let (ended, open) = (JobId::generate(), JobId::generate());
        let second = Attempt::FIRST.next();
        let mut marks = Marks::default();
        marks.add(queued(ended, Attempt::FIRST));
        marks.add(queued(ended, second));
        marks.add(queued(open, Attempt::FIRST));
        marks.add(Lazy::OutboxSent(7));
        let reports = reported(&[end(ended, Attempt::FIRST)]);

        let mut group = Group::default();
        let taken = marks.board(&mut group, &reports, true);
        let attempts = |group: &Group| -> Vec<_> {
            let of = |change: &Change| if let Change::Queued { attempt, .. } = change { Some(*attempt) } else { None };
            group.changes.iter().filter_map(|(id, change)| Some((*id, of(change)?))).collect()
        };
        assert_eq!(attempts(&group), [(ended, second), (open, Attempt::FIRST)]);
        assert_eq!(group.outbox_sent, [7]);

        marks.put_back(taken, Instant::now());
        marks.forget(&reports);
        let mut group = Group::default();
        marks.board(&mut group, &Reported::new(), true);
        assert_eq!(attempts(&group), [(ended, second), (open, Attempt::FIRST)]);
    }
}

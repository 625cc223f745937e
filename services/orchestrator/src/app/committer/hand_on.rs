//! What follows a commit: the relay gets what is to be published, callers and watchers their answers.

use super::CommitLoop;
use super::lanes::{Answer, Changes};
use crate::metrics;
use crate::model::{NewJob, State};
use crate::store::{Changed, Committed, CreatedJob, OutboxRow, Outgoing, Submitted};
use crate::transition::{Ignored, ResultEffect};
use agentforge_message_id::{Attempt, JobId};
use agentforge_proto::time::Micros;
use std::sync::Arc;

impl CommitLoop {
    pub(super) fn hand_on(
        &self,
        committed: Committed,
        submit_answers: Vec<(usize, Answer<Vec<Submitted>>)>,
        change_answers: Vec<(usize, Answer<Changes>)>,
        lazy: &[(JobId, i64)],
        claims_outbox: bool,
        now: Micros,
    ) {
        let Committed { submits, mut changes, results, rejects_new, outbox } = committed;
        for reason in rejects_new {
            metrics::DEAD_LETTERS.inc(&["unknown", "unknown", reason.as_str()]);
        }
        if !outbox.is_empty() {
            self.hand_on_outbox(outbox, claims_outbox);
        }
        self.hand_on_submits(submits, submit_answers, now);

        let asked: usize = change_answers.iter().map(|(n, _)| n).sum();
        for c in changes.iter().flatten() {
            self.note_change(c, &results, now);
        }
        // Marks come last in the group; a mark for a stopped job means an unneeded message.
        let marks = changes.split_off(asked.min(changes.len()));
        for (mark, (id, stream_seq)) in marks.iter().zip(lazy) {
            // A number of 0: it was refused, and the stream has nothing of it.
            if matches!(mark, Err(Ignored::Stopped)) && *stream_seq != 0 {
                self.orphans.delete(*id, *stream_seq);
            }
        }
        let mut rest = changes.into_iter();
        for (n, answer) in change_answers {
            let _ = answer.send(Ok(rest.by_ref().take(n).collect()));
        }
    }

    fn hand_on_outbox(&self, rows: Vec<OutboxRow>, claimed: bool) {
        if claimed {
            let messages = rows.iter().map(|row| row.messages.len()).sum();
            self.outbox.hand_over(rows, messages);
        } else {
            // More than is kept in memory: they are found in the store.
            self.outbox.backlog().note_unclaimed();
            self.outbox.backlog().wake_at(Micros::now());
        }
    }

    fn hand_on_submits(&self, submits: Vec<Submitted>, answers: Vec<(usize, Answer<Vec<Submitted>>)>, now: Micros) {
        let mut outgoing = Vec::new();
        let (mut unclaimed, mut wake_at) = (false, None);
        for s in &submits {
            if let Submitted::Created(CreatedJob { seq, job, claimed }) = s {
                if *claimed {
                    self.gauge.add(&job.queue);
                    outgoing.push(first_attempt(*seq, job));
                } else if let Some(later) = job.run_at.filter(|at| *at > now) {
                    self.gauge.add_later();
                    wake_at = wake_at.map_or(Some(later), |at: Micros| Some(at.min(later)));
                } else {
                    self.gauge.add(&job.queue);
                    unclaimed |= self.jobs.backlog().note_unclaimed_of(job.queue.as_str());
                }
            }
        }
        if let Some(at) = wake_at {
            self.jobs.backlog().wake_at(at);
        }
        if unclaimed {
            self.jobs.backlog().wake_at(Micros::now());
        }
        let messages = outgoing.len();
        self.jobs.hand_over(outgoing, messages);
        let mut rest = submits.into_iter();
        for (n, answer) in answers {
            let _ = answer.send(Ok(rest.by_ref().take(n).collect()));
        }
    }

    fn note_change(&self, c: &Changed, results: &[(i64, ResultEffect)], now: Micros) {
        let (was, is) = (c.from == State::Accepted, c.job.state == State::Accepted);
        if !c.from.is_final() && (is || c.job.state.is_final()) {
            self.jobs.backlog().note_done();
        }
        if was && !is {
            self.gauge.sub(&c.job.queue);
        } else if is && !was {
            // A retry waits its own time; nothing else waits for it.
            if c.job.available_at > now { self.gauge.add_later() } else { self.gauge.add(&c.job.queue) }
        }
        if is && (c.failed.is_some() || !was) {
            self.jobs.backlog().wake_at(c.job.available_at);
        }
        metrics::note_change(c);
        let result = || results.iter().find(|(seq, _)| *seq == c.job.seq).map(|(_, r)| r.clone());
        self.watchers.committed(&c.job, result);
    }
}

fn first_attempt(seq: i64, job: &NewJob) -> Outgoing {
    Outgoing { seq, attempt: Attempt::FIRST, republished: 0, deadline: job.deadline, spec: Arc::clone(&job.spec) }
}

//! What one commit writes, decided before anything is written.
//!
//! A store goes through it once, in this order: [`Subjects::of`] a group names the rows to read; [`decide`] folds the
//! group over them into a [`Plan`], one row per job, however many changes affect it; the store writes the plan; its
//! [`Answers`] go to the callers. Pure: rows in, rows out; `transition::apply` decides.

mod acts;

use super::identity::{Clash, Identities, Taken, Verdict};
use super::outbox::OutboxMessage;
use super::{Changed, CommitContext, Committed, CreatedJob, Group, OutboxRow, Submitted, events};
use crate::model::{AttemptRecord, DeadReason, Job, JobError, NewJob, State};
use crate::transition::{self, AttemptEffect, Change, Current, Effects, Ignored, ResultEffect};
use agentforge_message_id::JobId;
use agentforge_proto::bus::{ErrorClass, Rejected};
use agentforge_proto::time::Micros;
use std::collections::{HashMap, HashSet};

/// What a group is about: the rows to be read before it is decided.
#[derive(Debug)]
pub(super) struct Subjects<'g> {
    /// Ids of submissions that may exist already.
    pub ids: Vec<JobId>,
    /// Missions and keys of submissions.
    pub keys: Vec<(&'g str, &'g str)>,
    /// Jobs that the changes name, each once.
    pub changed: Vec<JobId>,
    /// Ids of dead letters that the rejects would make.
    pub letters: Vec<String>,
}

impl<'g> Subjects<'g> {
    pub(super) fn of(group: &'g Group) -> Self {
        let mut seen = HashSet::with_capacity(group.changes.len());
        let jobs = || group.submits.iter().map(|s| &s.job);
        Self {
            ids: jobs().filter(|job| job.id_from_caller).map(|job| job.id).collect(),
            keys: jobs().filter_map(|job| Some((job.mission.as_str(), job.idempotency_key.as_deref()?))).collect(),
            changed: group.changes.iter().map(|(id, _)| *id).filter(|id| seen.insert(*id)).collect(),
            letters: group.rejects.iter().map(events::rejected_id).collect(),
        }
    }
}

/// What the database knows of a group's subjects.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Jobs that have an id or a key of the submissions.
    pub taken: Vec<Taken>,
    /// Jobs that the changes name.
    pub currents: Vec<Box<Current>>,
    /// Ids of dead letters that the rejects would make.
    pub letters: HashSet<String>,
}

/// How a job's row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Not at all.
    Nothing,
    /// Only what `Queued` and `Started` touch: the most frequent update by far.
    Progress,
    /// Everything that can change.
    Whole,
}

/// A job as it is after the group.
#[derive(Debug)]
pub(super) struct Touched {
    /// Boxed: it passes through many hands, and is large.
    pub job: Box<Current>,
    /// The number of the submission that this is the new row of: inserted as accepted, then written.
    pub new: Option<usize>,
    pub write: Write,
    pub claimed: bool,
}

/// The columns that timers wait on; see the schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Timers {
    pub claimable_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub checked_at: Option<i64>,
}

impl Touched {
    pub(super) fn timers(&self, claim_until: Micros) -> Timers {
        let j = &self.job;
        let waits = j.state == State::Accepted;
        let claimable_at = if self.claimed { claim_until.0 } else { j.available_at.0 };
        Timers {
            claimable_at: waits.then_some(claimable_at),
            expires_at: j.deadline.filter(|_| !j.state.is_final()).map(|d| d.0),
            checked_at: if waits || j.state.is_final() { None } else { j.queued_at.map(|q| q.0) },
        }
    }
}

/// A dead letter to be stored.
#[derive(Debug)]
pub(super) struct Letter {
    pub id: String,
    /// Row number and id of the job, where there is one.
    pub job: Option<(i64, JobId)>,
    pub mission: String,
    pub queue: String,
    pub tool: String,
    pub reason: DeadReason,
    pub error: JobError,
    pub at: Micros,
    source: LetterSource,
}

#[derive(Debug)]
enum LetterSource {
    Change(usize),
    Reject(usize),
}

/// What a job's dead letter contains besides the row.
#[derive(Debug, Default)]
pub(super) struct LetterDetails {
    pub args: String,
    pub traceparent: Option<String>,
    /// Tries stored before this commit, oldest first.
    pub attempts: Vec<AttemptRecord>,
}

#[derive(Debug)]
enum Answer {
    Created(usize),
    Existing(JobId),
    Conflict { existing: JobId, clash: Clash },
}

#[derive(Debug)]
enum Out {
    Message(OutboxMessage),
    Letter(usize),
}

/// What one commit writes.
#[derive(Debug)]
pub(super) struct Plan<'g> {
    pub group: &'g Group,
    pub jobs: Vec<Touched>,
    pub attempts: Vec<(i64, AttemptEffect)>,
    pub results: Vec<(i64, ResultEffect)>,
    pub letters: Vec<Letter>,
    /// Jobs whose stored dead letters are marked as put back.
    pub redriven: Vec<JobId>,
    /// Jobs that lose their idempotency key to a new one, before that is written.
    pub released: Vec<JobId>,
    redrives: Vec<(JobId, usize)>,
    answers: Vec<Answer>,
    changes: Vec<Result<Changed, Ignored>>,
    rejects_new: Vec<DeadReason>,
    out: Vec<Out>,
}

/// Folds `group` over what was found. `next_seq` numbers new jobs, `jitter` gives numbers in 0..1.
pub(super) fn decide<'g>(
    group: &'g Group,
    ctx: &CommitContext<'_>,
    found: Found,
    next_seq: impl FnMut() -> i64,
    jitter: impl FnMut() -> f64,
) -> Plan<'g> {
    let mut fold = Fold::new(group, ctx, found.currents);
    fold.submit(&found.taken, next_seq);
    fold.change(jitter);
    fold.reject(found.letters);
    fold.plan
}

struct Fold<'g, 'c> {
    group: &'g Group,
    ctx: &'c CommitContext<'c>,
    by_id: HashMap<JobId, usize>,
    plan: Plan<'g>,
}

impl<'g, 'c> Fold<'g, 'c> {
    fn new(group: &'g Group, ctx: &'c CommitContext<'c>, currents: Vec<Box<Current>>) -> Self {
        let jobs: Vec<_> =
            currents.into_iter().map(|job| Touched { job, new: None, write: Write::Nothing, claimed: false }).collect();
        let by_id = jobs.iter().enumerate().map(|(i, t)| (t.job.id, i)).collect();
        let plan = Plan {
            group,
            jobs,
            attempts: vec![],
            results: vec![],
            letters: vec![],
            redriven: vec![],
            released: vec![],
            redrives: vec![],
            answers: Vec::with_capacity(group.submits.len()),
            changes: Vec::with_capacity(group.changes.len()),
            rejects_new: vec![],
            out: Vec::with_capacity(group.submits.len() + group.changes.len()),
        };
        Self { group, ctx, by_id, plan }
    }

    fn submit(&mut self, taken: &[Taken], mut next_seq: impl FnMut() -> i64) {
        let mut known = Identities::of(taken);
        for (number, s) in self.group.submits.iter().enumerate() {
            let answer = match known.judge(&s.job) {
                Verdict::Existing(id) => Answer::Existing(id),
                Verdict::Conflict { existing, clash } => Answer::Conflict { existing, clash },
                Verdict::New { released } => {
                    known.add(&s.job);
                    self.release(released);
                    Answer::Created(self.create(number, next_seq()))
                }
            };
            self.plan.answers.push(answer);
        }
    }

    /// The key of a job that ended goes to the submission that asked for it.
    fn release(&mut self, released: Option<JobId>) {
        let Some(id) = released else { return };
        self.plan.released.push(id);
        if let Some(&index) = self.by_id.get(&id) {
            self.plan.jobs[index].job.key_released = true;
        }
    }

    fn create(&mut self, number: usize, seq: i64) -> usize {
        let submit = &self.group.submits[number];
        let later = submit.job.run_at.filter(|r| *r > self.ctx.now);
        let index = self.plan.jobs.len();
        self.by_id.insert(submit.job.id, index);
        self.plan.jobs.push(Touched {
            job: Box::new(Current::accepted(&submit.job, seq, later.unwrap_or(self.ctx.now))),
            new: Some(number),
            write: Write::Nothing,
            claimed: submit.claim && later.is_none(),
        });
        if self.ctx.events.includes(State::Accepted) {
            self.plan.out.push(Out::Message(events::accepted(&submit.job)));
        }
        index
    }

    fn change(&mut self, mut jitter: impl FnMut() -> f64) {
        // Changes that are published as events, if the job's end does not follow in this very commit.
        let mut announced = Vec::with_capacity(self.group.changes.len());
        for (id, change) in &self.group.changes {
            let Some(&index) = self.by_id.get(id) else {
                self.plan.changes.push(Err(Ignored::Unknown));
                continue;
            };
            let touched = &mut self.plan.jobs[index];
            let (from, attempt) = (touched.job.state, touched.job.attempt);
            match transition::apply(&mut touched.job, change, self.ctx.backoff, self.ctx.now, jitter()) {
                Err(ignored) => self.plan.changes.push(Err(ignored)),
                Ok(effects) => {
                    if (from, attempt) != (touched.job.state, touched.job.attempt) {
                        announced.push((self.plan.changes.len(), index, moment(change, self.ctx.now)));
                    }
                    self.applied(index, from, change, effects);
                }
            }
        }
        for (number, index, at) in announced {
            self.announce(number, index, at);
        }
    }

    fn applied(&mut self, index: usize, from: State, change: &Change, effects: Effects) {
        let touched = &mut self.plan.jobs[index];
        let seq = touched.job.seq;
        if effects.release_claim || touched.job.state.is_final() {
            touched.claimed = false;
        }
        touched.write = match (touched.write, change) {
            (Write::Whole, _) => Write::Whole,
            (_, Change::Queued { .. } | Change::Started(_)) => Write::Progress,
            _ => Write::Whole,
        };
        if effects.redriven {
            self.plan.redriven.push(touched.job.id);
            self.plan.redrives.push((touched.job.id, self.plan.changes.len()));
        }
        let failed = effects.attempt.as_ref().and_then(|a| a.error.as_ref()).map(|e| e.class);
        let (dead, disputed) = (effects.dead, effects.disputed);
        self.plan.changes.push(Ok(Changed { from, job: Current::clone(&touched.job), dead, failed, disputed }));
        self.plan.attempts.extend(effects.attempt.map(|a| (seq, a)));
        self.plan.results.extend(effects.result.map(|r| (seq, r)));
    }

    fn announce(&mut self, number: usize, index: usize, at: Micros) {
        let ended = self.plan.jobs[index].job.state.is_final();
        let Some(Ok(changed)) = self.plan.changes.get(number) else { return };
        let job = &changed.job;
        let passed_by = ended && matches!(job.state, State::Queued | State::Running);
        if self.ctx.events.includes(job.state) && !passed_by {
            let source = match &self.group.changes[number].1 {
                Change::Finished(finished) | Change::ToolMissing { finished, .. } => events::Source {
                    traceparent: finished.traceparent.as_deref(),
                    request_id: finished.request_id.as_deref(),
                },
                _ => events::Source::default(),
            };
            self.plan.out.push(Out::Message(events::changed(job, at, source)));
        }
        let Some(reason) = changed.dead else { return };
        self.plan.out.push(Out::Letter(self.plan.letters.len()));
        self.plan.letters.push(Letter {
            id: events::dead_letter_id(job),
            job: Some((job.seq, job.id)),
            mission: job.mission.to_string(),
            queue: job.queue.to_string(),
            tool: job.tool.to_string(),
            reason,
            error: job.error.clone().unwrap_or_else(|| JobError {
                class: ErrorClass::Unknown,
                message: String::new(),
                log_tail: String::new(),
            }),
            at: self.ctx.now,
            source: LetterSource::Change(number),
        });
    }

    fn reject(&mut self, mut known: HashSet<String>) {
        for (number, r) in self.group.rejects.iter().enumerate() {
            let id = events::rejected_id(r);
            if !known.insert(id.clone()) {
                continue;
            }
            self.plan.rejects_new.push(events::rejected_reason(r));
            self.plan.out.push(Out::Letter(self.plan.letters.len()));
            self.plan.letters.push(rejected(r, id, number));
        }
    }
}

impl Plan<'_> {
    /// The new jobs, each with its submission.
    pub(super) fn new_jobs(&self) -> Vec<(&Touched, &NewJob)> {
        self.jobs.iter().filter_map(|t| Some((t, &self.group.submits[t.new?].job))).collect()
    }

    /// The jobs whose rows are written in this way.
    pub(super) fn written(&self, how: Write) -> Vec<&Touched> {
        self.jobs.iter().filter(|t| t.write == how).collect()
    }

    /// Whether a letter of this commit is put back by this very commit.
    pub(super) fn is_redriven(&self, letter: &Letter) -> bool {
        let (Some((_, id)), LetterSource::Change(made)) = (letter.job, &letter.source) else { return false };
        self.redrives.iter().any(|(job, number)| *job == id && number > made)
    }

    /// Row numbers of stored jobs whose dead letters need [`LetterDetails`]; of jobs that are new in
    /// this group, the group itself has them.
    pub(super) fn seqs_of_letters(&self) -> Vec<i64> {
        let mut seqs: Vec<i64> = self.letters.iter().filter_map(|l| l.job.map(|(seq, _)| seq)).collect();
        seqs.sort_unstable();
        seqs.dedup();
        seqs
    }

    /// The messages for the outbox, in order. Call it once.
    pub(super) fn take_messages(&mut self, details: &HashMap<i64, LetterDetails>) -> Vec<OutboxMessage> {
        std::mem::take(&mut self.out)
            .into_iter()
            .map(|out| match out {
                Out::Message(m) => m,
                Out::Letter(n) => self.letter_message(&self.letters[n], details),
            })
            .collect()
    }

    fn letter_message(&self, letter: &Letter, details: &HashMap<i64, LetterDetails>) -> OutboxMessage {
        let number = match letter.source {
            LetterSource::Reject(number) => return events::rejected_letter(&self.group.rejects[number]),
            LetterSource::Change(number) => number,
        };
        let job = match &self.changes[number] {
            Ok(changed) => &changed.job,
            Err(_) => unreachable!("a letter comes from an applied change"),
        };
        let new = self.jobs.iter().find(|t| t.job.seq == job.seq).and_then(|t| Some(&self.group.submits[t.new?].job));
        let stored = details.get(&job.seq);
        let (args, traceparent) = match (new, stored) {
            (Some(n), _) => (n.args.as_str(), n.traceparent.as_deref()),
            (None, Some(d)) => (d.args.as_str(), d.traceparent.as_deref()),
            (None, None) => ("null", None),
        };
        let mut attempts = stored.map(|d| d.attempts.clone()).unwrap_or_default();
        let of_this_group = self.attempts.iter().filter(|(seq, a)| *seq == job.seq && a.attempt <= job.attempt);
        attempts.extend(of_this_group.map(|(_, a)| record(a)));
        events::dead_letter(job, letter.reason, args, traceparent, &attempts, letter.at)
    }

    /// Jobs that stand for submissions made before.
    pub(super) fn existing(&self) -> Vec<JobId> {
        let ids = self.answers.iter().filter_map(|a| if let Answer::Existing(id) = a { Some(*id) } else { None });
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The answers to the group. `existing` holds the jobs that [`Plan::existing`] names; `None` when one is missing.
    pub(super) fn answers(self, existing: &HashMap<JobId, Job>, outbox: Vec<OutboxRow>) -> Option<Answers> {
        let Self { jobs, changes, results, rejects_new, answers, released, .. } = self;
        let mut submits = Vec::with_capacity(answers.len());
        for answer in answers {
            submits.push(match answer {
                Answer::Created(index) => Kept::Now { seq: jobs[index].job.seq, claimed: jobs[index].claimed },
                Answer::Existing(id) => Kept::Before(Submitted::Existing(Box::new(existing.get(&id)?.clone()))),
                Answer::Conflict { existing, clash } => Kept::Before(Submitted::Conflict { existing, clash }),
            });
        }
        let committed = Committed { submits: vec![], changes, results, rejects_new, outbox };
        Some(Answers { submits, committed, jobs: jobs.into_iter().map(|t| t.job).collect(), released })
    }
}

/// What a commit answers its callers, once it is made.
#[derive(Debug)]
pub(super) struct Answers {
    submits: Vec<Kept>,
    committed: Committed,
    /// Every job that the group was about, as it is now.
    pub jobs: Vec<Box<Current>>,
    /// The jobs that lost their key.
    pub released: Vec<JobId>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per submission, for a moment")]
enum Kept {
    Now { seq: i64, claimed: bool },
    Before(Submitted),
}

impl Answers {
    /// The answers to `group`, which they were made of.
    pub(super) fn to(self, group: Group) -> Committed {
        let submits = self.submits.into_iter().zip(group.submits).map(|(kept, submit)| match kept {
            Kept::Now { seq, claimed } => Submitted::Created(CreatedJob { seq, job: submit.job, claimed }),
            Kept::Before(answer) => answer,
        });
        Committed { submits: submits.collect(), ..self.committed }
    }
}

fn rejected(r: &Rejected, id: String, number: usize) -> Letter {
    let (mission, queue) = events::queue_of(&r.subject);
    Letter {
        id,
        job: None,
        mission,
        queue,
        tool: String::new(),
        reason: events::rejected_reason(r),
        error: JobError { class: ErrorClass::InvalidMessage, message: r.reason.clone(), log_tail: String::new() },
        at: r.at,
        source: LetterSource::Reject(number),
    }
}

fn record(a: &AttemptEffect) -> AttemptRecord {
    AttemptRecord {
        attempt: a.attempt,
        outcome: a.outcome.to_owned(),
        error: a.error.clone(),
        worker: a.worker.clone(),
        delivery: a.delivery,
        started_at: a.started_at,
        finished_at: a.finished_at,
        retry_at: a.retry_at,
    }
}

/// When a change took place, as in its event.
fn moment(change: &Change, now: Micros) -> Micros {
    match change {
        Change::Queued { at, .. }
        | Change::Refused { at, .. }
        | Change::Cancel { at, .. }
        | Change::Expire { at }
        | Change::Redrive { at }
        | Change::Retry { at, .. }
        | Change::Republish { at, .. } => *at,
        Change::Started(s) => s.at,
        Change::Finished(_) | Change::ToolMissing { .. } => now,
    }
}

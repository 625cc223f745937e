//! The hot path: one group, one transaction, one thread from top to bottom.

use super::audit;
use super::lite::{Bind, Known, Lite, Parameters, take};
use super::parked::{PARK, SHORTEN};
use super::statements::{
    ATTEMPTS, CURRENTS, DELETE_OUTBOX, INSERT_ATTEMPTS, INSERT_JOBS, INSERT_LABELS, INSERT_LETTERS, INSERT_OUTBOX,
    INSERT_PAYLOADS, INSERT_RESULTS, KNOWN_LETTERS, MARK_REDRIVEN, PAYLOADS, RELEASE_KEYS, TAKEN_IDS, TAKEN_KEYS,
    UPDATE_PROGRESS, UPDATE_WHOLE, WHOLE_JOBS,
};
use crate::model::{Job, JobError, NewJob};
use crate::store::audit::event as entry_event;
use crate::store::columns::micros;
use crate::store::fault::Fault;
use crate::store::outbox::rows_of;
use crate::store::plan::{self, Answers, Found, Letter, LetterDetails, Plan, Subjects, Touched, Write};
use crate::store::{CommitContext, Committed, Group, OutboxRow, PARKED_MAX};
use crate::store::{rows, spec};
use crate::transition::{AttemptEffect, Current, ResultEffect};
use agentforge_audit::Chained;
use agentforge_message_id::JobId;
use std::collections::{HashMap, HashSet};

/// Applies `group` in a transaction of its own.
///
/// After an error the connection is closed, and what was known goes with it.
pub(super) fn commit(
    lite: &Lite,
    known: &mut Known,
    group: Group,
    ctx: &CommitContext<'_>,
) -> Result<Committed, Fault> {
    // There is no other writer: what is read before the transaction begins is still true when it does.
    let decided = decide(lite, known, &group, ctx, true)?;
    let mut answers = lite.transaction(|lite| write(lite, decided, ctx))?;
    // What is remembered of a job that was not read does not know that it lost its key.
    answers.released.iter().for_each(|id| _ = known.recent.take(id));
    known.recent.keep(std::mem::take(&mut answers.jobs));
    Ok(answers.to(group))
}

/// Applies `group` inside a transaction that is the caller's.
pub(super) fn apply(lite: &Lite, known: &mut Known, group: Group, ctx: &CommitContext<'_>) -> Result<Committed, Fault> {
    let decided = decide(lite, known, &group, ctx, false)?;
    Ok(write(lite, decided, ctx)?.to(group))
}

/// What is to be written.
struct Decided<'g> {
    plan: Plan<'g>,
    outbox: Vec<OutboxRow>,
    entries: Vec<Chained>,
}

fn decide<'g>(
    lite: &Lite,
    known: &mut Known,
    group: &'g Group,
    ctx: &CommitContext<'_>,
    may_remember: bool,
) -> Result<Decided<'g>, Fault> {
    let subjects = Subjects::of(group);
    let remembered =
        if may_remember { subjects.changed.iter().filter_map(|id| known.recent.take(id)).collect() } else { vec![] };
    let found = look_up(lite, &subjects, remembered)?;
    let mut plan = plan::decide(group, ctx, found, || take(&mut known.next_job), rand::random::<f64>);
    let details = letter_details(lite, &plan)?;
    let mut messages = plan.take_messages(&details);
    let entries = audit::chain(&mut known.audit, plan.entries(ctx.now));
    messages.extend(entries.iter().map(|entry| entry_event(entry, ctx.mission.as_str())));
    let outbox = rows_of(messages, || take(&mut known.next_outbox));
    Ok(Decided { plan, outbox, entries })
}

fn write(lite: &Lite, decided: Decided<'_>, ctx: &CommitContext<'_>) -> Result<Answers, Fault> {
    let Decided { plan, outbox, entries } = decided;
    write_jobs(lite, &plan, ctx)?;
    write_letters(lite, &plan, ctx)?;
    write_outbox(lite, &outbox, plan.group, ctx)?;
    audit::write(lite, &entries)?;
    // Submissions that were stored before are answered with their job as this commit leaves it.
    let existing = whole_jobs(lite, &plan.existing())?;
    plan.answers(&existing, outbox).ok_or_else(|| Fault::row("job", "it has no payload"))
}

fn look_up(lite: &Lite, subjects: &Subjects<'_>, remembered: Vec<Box<Current>>) -> Result<Found, Fault> {
    let mut taken = lite.find(TAKEN_IDS, &subjects.ids, |a, id| _ = a.id(id), |row| rows::taken(row))?;
    let key = |a: &mut Parameters<'_, '_>, key: &(&str, &str)| _ = a.text(key.0).text(key.1);
    taken.extend(lite.find(TAKEN_KEYS, &subjects.keys, key, |row| rows::taken(row))?);
    let is_remembered: HashSet<JobId> = remembered.iter().map(|job| job.id).collect();
    let missing = subjects.changed.iter().filter(|id| !is_remembered.contains(id));
    let mut currents = remembered;
    currents.extend(lite.find(CURRENTS, missing, |a, id| _ = a.id(id), |row| rows::current(row).map(Box::new))?);
    let letters = lite.find(KNOWN_LETTERS, &subjects.letters, |a, id| _ = a.text(&**id), |row| rows::letter_id(row))?;
    Ok(Found { taken, currents, letters: letters.into_iter().collect() })
}

fn letter_details(lite: &Lite, plan: &Plan<'_>) -> Result<HashMap<i64, LetterDetails>, Fault> {
    let seqs = plan.seqs_of_letters();
    let mut details: HashMap<i64, LetterDetails> = HashMap::with_capacity(seqs.len());
    for (seq, args, traceparent) in lite.find(PAYLOADS, &seqs, |a, seq| _ = a.number(*seq), |row| rows::payload(row))? {
        details.insert(seq, LetterDetails { args, traceparent, attempts: vec![] });
    }
    for (seq, attempt) in lite.find(ATTEMPTS, &seqs, |a, seq| _ = a.number(*seq), |row| rows::attempt_of_job(row))? {
        details.entry(seq).or_default().attempts.push(attempt);
    }
    Ok(details)
}

/// Jobs by id, with their payloads and results.
fn whole_jobs(lite: &Lite, ids: &[JobId]) -> Result<HashMap<JobId, Job>, Fault> {
    let jobs = lite.find(WHOLE_JOBS, ids, |a, id| _ = a.id(id), |row| rows::job(row))?;
    Ok(jobs.into_iter().map(|job| (job.id, job)).collect())
}

fn write_jobs(lite: &Lite, plan: &Plan<'_>, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    let new = plan.new_jobs();
    lite.each(RELEASE_KEYS, &plan.released, |a, id| _ = a.id(id))?;
    lite.each(&INSERT_JOBS, &new, |a, (t, job)| bind_job(a, t, job, ctx))?;
    let labelled = new.iter().filter(|(_, job)| !job.spec.labels.is_empty());
    lite.each(INSERT_LABELS, labelled, |a, (t, _)| _ = a.number(t.job.seq))?;
    lite.each(&INSERT_PAYLOADS, &new, |a, (t, job)| bind_payload(a, t.job.seq, job))?;
    lite.each(UPDATE_PROGRESS, plan.written(Write::Progress), |a, t| bind_progress(a, t, ctx))?;
    lite.each(UPDATE_WHOLE, plan.written(Write::Whole), |a, t| bind_whole(a, t, ctx))?;
    lite.each(&INSERT_ATTEMPTS, &plan.attempts, |a, (seq, t)| bind_attempt(a, *seq, t))?;
    lite.each(&INSERT_RESULTS, &plan.results, |a, (seq, r)| bind_result(a, *seq, r))
}

fn bind_job(a: &mut impl Bind, t: &Touched, new: &NewJob, ctx: &CommitContext<'_>) {
    let deadline = new.deadline.map(|d| d.0);
    // As accepted: a change in the same group is written over it.
    let (claimable_at, claim_owner) =
        if t.claimed { (ctx.claim_until, Some(ctx.owner.0.as_str())) } else { (t.job.available_at, None) };
    a.number(t.job.seq).number(i64::from(new.max_attempts)).number(t.job.available_at.0);
    a.number(claimable_at.0).text(claim_owner).number(deadline).number(deadline);
    a.bytes(new.body_hash.as_ref().map(<[u8; 32]>::as_slice)).bytes(new.given_hash.as_ref().map(<[u8; 32]>::as_slice));
    a.number(t.job.lifetime.map(micros));
    spec::columns_of("jobs").for_each(|column| _ = a.value(&(column.value)(new)));
}

fn bind_payload(a: &mut impl Bind, seq: i64, new: &NewJob) {
    a.number(seq);
    spec::columns_of("job_payloads").for_each(|column| _ = a.value(&(column.value)(new)));
}

fn bind_progress(a: &mut impl Bind, t: &Touched, ctx: &CommitContext<'_>) {
    let j = &t.job;
    a.number(j.seq).number(j.state as i64).number(j.queued_at.map(|m| m.0)).number(j.started_at.map(|m| m.0));
    a.text(j.worker.as_deref()).number(j.stream_seq).number(j.version).number(t.timers(ctx.claim_until).checked_at);
}

fn bind_whole(a: &mut impl Bind, t: &Touched, ctx: &CommitContext<'_>) {
    let (j, timers) = (&t.job, t.timers(ctx.claim_until));
    a.number(j.seq).number(j.state as i64).number(i64::from(j.attempt.get())).number(i64::from(j.attempt_limit));
    a.number(j.version).number(i64::from(j.republished)).number(j.stream_seq).number(j.available_at.0);
    a.number(timers.claimable_at).number(j.deadline.map(|d| d.0)).number(timers.expires_at);
    a.number(timers.checked_at).number(j.queued_at.map(|m| m.0)).number(j.started_at.map(|m| m.0));
    a.number(j.finished_at.map(|m| m.0)).text(j.worker.as_deref()).text(j.cancelled_by.as_deref());
    bind_error(a, j.error.as_ref());
}

fn bind_attempt(a: &mut impl Bind, seq: i64, t: &AttemptEffect) {
    a.number(seq).number(i64::from(t.attempt.get())).text(t.outcome);
    a.number(i64::try_from(t.delivery).unwrap_or(i64::MAX)).number(t.started_at.map(|m| m.0)).number(t.finished_at.0);
    a.number(t.retry_at.map(|m| m.0)).text(t.worker.as_deref());
    bind_error(a, t.error.as_ref());
}

fn bind_result(a: &mut impl Bind, seq: i64, r: &ResultEffect) {
    let output_ref = r.output_ref.as_ref();
    let output_ref = output_ref.map(|o| serde_json::to_string(o).expect("strings and a number are always JSON"));
    a.number(seq).text(output_ref.as_deref()).bytes(r.replay_of.as_ref().map(|id| id.as_bytes().as_slice()));
    a.text(r.output.as_deref());
}

fn write_letters(lite: &Lite, plan: &Plan<'_>, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    lite.each(MARK_REDRIVEN, &plan.redriven, |a, id| _ = a.number(ctx.now.0).id(id))?;
    lite.each(&INSERT_LETTERS, &plan.letters, |a, l| bind_letter(a, l, plan, ctx))
}

fn bind_letter(a: &mut impl Bind, l: &Letter, plan: &Plan<'_>, ctx: &CommitContext<'_>) {
    a.text(&*l.id).bytes(l.job.as_ref().map(|(_, id)| id.as_bytes().as_slice()));
    a.text(&*l.mission).text(&*l.queue).text(&*l.tool).text(l.reason.as_str());
    a.number(l.at.0).number(plan.is_redriven(l).then_some(ctx.now.0));
    bind_error(a, Some(&l.error));
}

fn write_outbox(lite: &Lite, new: &[OutboxRow], group: &Group, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    let (until, owner) = if group.claim_outbox { (ctx.claim_until.0, Some(ctx.owner.0.as_str())) } else { (0, None) };
    lite.each(&INSERT_OUTBOX, new, |a, row| audit::bind_row(a, row, until, owner, ctx.now))?;
    lite.each(PARK, &group.outbox_parked, |a, p| {
        a.number(p.seq).number(ctx.now.0).text(&*p.message.subject).text(&*p.message.msg_id).text(p.code);
        a.text(&*p.reason).bytes(&*p.message.payload);
    })?;
    if !group.outbox_parked.is_empty() {
        lite.each(SHORTEN, &[PARKED_MAX], |a, kept| _ = a.number(*kept))?;
    }
    lite.each(DELETE_OUTBOX, &runs(&group.outbox_sent), |a, run| _ = a.number(run.0).number(run.1))
}

/// Numbers that follow each other, as the first and the last of each run: rows are mostly sent in their order, and one
/// statement for a run costs what it costs for a row.
fn runs(numbers: &[i64]) -> Vec<(i64, i64)> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for n in sorted {
        match runs.last_mut() {
            Some((_, last)) if n <= last.saturating_add(1) => *last = n,
            _ => runs.push((n, n)),
        }
    }
    runs
}

fn bind_error(a: &mut impl Bind, error: Option<&JobError>) {
    a.text(error.map(|e| e.class.as_str()));
    a.text(error.map(|e| e.message.as_str())).text(error.map(|e| e.log_tail.as_str()));
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn runs_hold_each_number_and_no_other() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[7, 3, 4, 9, 5, 4, 10]), [(3, 5), (7, 7), (9, 10)]);
        assert_eq!(runs(&[i64::MAX, i64::MAX - 1]), [(i64::MAX - 1, i64::MAX)]);
    }
}

//! The hot path: one group, one transaction, about a dozen statements regardless of its size.

use super::connection::Writer;
use super::parked::{PARK, SHORTEN};
use super::readers::{self, Columns};
use super::sql::{Args, Script, push_id};
use super::statements::{
    ATTEMPTS, CURRENTS, DELETE_OUTBOX, INSERT_ATTEMPTS, INSERT_JOBS, INSERT_LETTERS, INSERT_OUTBOX, INSERT_PAYLOADS,
    INSERT_RESULTS, KNOWN_LETTERS, MARK_REDRIVEN, PAYLOADS, RELEASE_KEYS, TAKEN_IDS, TAKEN_KEYS, UPDATE_PROGRESS,
    UPDATE_WHOLE, WHOLE_JOBS,
};
use crate::model::{Job, JobError, NewJob};
use crate::store::fault::Fault;
use crate::store::plan::{self, Found, Letter, LetterDetails, Plan, Touched, Write};
use crate::store::rows;
use crate::store::{CommitContext, Committed, Group, OutboxRow, PARKED_MAX, events};
use crate::transition::{AttemptEffect, Current, ResultEffect};
use agentforge_message_id::JobId;
use sqlx::sqlite::SqliteConnection;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Applies `group` in a transaction of its own.
pub(super) async fn commit(w: &mut Writer, group: Group, ctx: &CommitContext<'_>) -> Result<Committed, Fault> {
    let numbers = Numbers { next_job: &mut w.next_job, next_outbox: &mut w.next_outbox };
    let mut missing = plan::ids_to_load(&group);
    let mut known = Vec::with_capacity(missing.len());
    missing.retain(|id| match w.recent.take(id) {
        Some(job) => {
            known.push(job);
            false
        }
        None => true,
    });
    // Plain statements, so that they travel with others. After an error the connection is closed, which
    // rolls back, and the memory of recent jobs goes with it.
    let lookup = Lookup { known, missing };
    let ends = Ends::Commits(&w.told);
    let (committed, jobs, released) = run(&mut w.connection, numbers, group, ctx, ends, lookup).await?;
    for id in released {
        // What is remembered of it does not know that it lost its key.
        w.recent.take(&id);
    }
    w.recent.keep(jobs);
    Ok(committed)
}

/// The stored jobs that a group changes: those remembered, and those to be read.
struct Lookup {
    known: Vec<Current>,
    missing: Vec<JobId>,
}

/// Who begins and commits the transaction.
#[derive(Clone, Copy)]
enum Ends<'w> {
    /// The group's own statements; this shows when they are done.
    Commits(&'w Notify),
    /// The caller.
    Caller,
}

/// The row numbers that the writer gives.
pub(super) struct Numbers<'w> {
    pub next_job: &'w mut i64,
    pub next_outbox: &'w mut i64,
}

/// Applies `group` inside a transaction.
pub(super) async fn apply(
    c: &mut SqliteConnection,
    numbers: Numbers<'_>,
    group: Group,
    ctx: &CommitContext<'_>,
) -> Result<Committed, Fault> {
    let lookup = Lookup { known: vec![], missing: plan::ids_to_load(&group) };
    run(c, numbers, group, ctx, Ends::Caller, lookup).await.map(|(committed, ..)| committed)
}

async fn run(
    c: &mut SqliteConnection,
    numbers: Numbers<'_>,
    group: Group,
    ctx: &CommitContext<'_>,
    ends: Ends<'_>,
    lookup: Lookup,
) -> Result<(Committed, Vec<Current>, Vec<JobId>), Fault> {
    // There is no other writer: what is read before the transaction begins is still true when it does.
    let found = look_up(c, &group, lookup).await?;
    let mut plan = plan::fold(&group, ctx, found, || take(numbers.next_job), rand::random::<f64>);
    let details = letter_details(c, &plan).await?;
    let outbox = plan.take_outbox(&group, &details, || take(numbers.next_outbox));
    let mut script = Script::for_group(&group);
    let commits = matches!(ends, Ends::Commits(_));
    if commits {
        script.add_plain("BEGIN IMMEDIATE");
    }
    write_jobs(&mut script, &group, &plan, ctx);
    write_letters(&mut script, &plan, ctx);
    write_outbox(&mut script, &outbox, &group, ctx);
    let asked = plan.existing();
    let told = if let Ends::Commits(told) = ends { asked.is_empty().then_some(told) } else { None };
    if told.is_some() {
        script.add_plain("COMMIT");
    }
    script.run(c, told).await?;
    let existing = whole_jobs(c, &asked).await?;
    if commits && !asked.is_empty() {
        sqlx::query("COMMIT").execute(c).await?;
    }
    let released = std::mem::take(&mut plan.released);
    let (committed, jobs) =
        plan.answer(group, &existing, outbox).ok_or_else(|| Fault::row("job", "it has no payload"))?;
    Ok((committed, jobs, released))
}

fn take(next: &mut i64) -> i64 {
    let n = *next;
    *next += 1;
    n
}

async fn look_up(c: &mut SqliteConnection, group: &Group, lookup: Lookup) -> Result<Found, Fault> {
    let by_id = TAKEN_IDS.fetch(c, &plan::ids_to_check(group), push_id).await?;
    let keys = plan::keys_to_check(group);
    let by_key = TAKEN_KEYS.fetch(c, &keys, |a, (mission, key)| _ = a.text(mission).text(key)).await?;
    let read = CURRENTS.fetch(c, &lookup.missing, push_id).await?;
    let mut currents = lookup.known;
    for row in &read {
        currents.push(readers::current(row)?);
    }
    let letters: Vec<String> = group.rejects.iter().map(events::rejected_id).collect();
    let letters = KNOWN_LETTERS.fetch(c, &letters, |a, id| _ = a.text(id)).await?;
    Ok(Found {
        taken: by_id.iter().chain(&by_key).map(readers::taken).collect::<Result<_, _>>()?,
        currents,
        letters: letters.iter().map(|r| Columns::of(r).take()).collect::<Result<_, _>>()?,
    })
}

async fn letter_details(c: &mut SqliteConnection, plan: &Plan) -> Result<HashMap<i64, LetterDetails>, Fault> {
    let seqs = plan.seqs_of_letters();
    let mut details: HashMap<i64, LetterDetails> = HashMap::with_capacity(seqs.len());
    for row in PAYLOADS.fetch(c, &seqs, |a, seq| _ = a.push(*seq)).await? {
        let mut columns = Columns::of(&row);
        let d = details.entry(columns.take()?).or_default();
        (d.args, d.traceparent) = (columns.take()?, columns.take()?);
    }
    for row in ATTEMPTS.fetch(c, &seqs, |a, seq| _ = a.push(*seq)).await? {
        let (seq, attempt) = readers::attempt_of_job(&row)?;
        details.entry(seq).or_default().attempts.push(attempt);
    }
    Ok(details)
}

/// Jobs by id, with their payloads and results.
pub(super) async fn whole_jobs(c: &mut SqliteConnection, ids: &[JobId]) -> Result<HashMap<JobId, Job>, Fault> {
    let rows = WHOLE_JOBS.fetch(c, ids, push_id).await?;
    rows.iter().map(|row| readers::job(row).map(|job| (job.id, job))).collect()
}

fn write_jobs(script: &mut Script, group: &Group, plan: &Plan, ctx: &CommitContext<'_>) {
    let new: Vec<(&Touched, &NewJob)> =
        plan.jobs.iter().filter_map(|t| Some((t, &group.submits[t.new?].job))).collect();
    RELEASE_KEYS.add(script, &plan.released, push_id);
    INSERT_JOBS.add(script, &new, |a, (t, job)| bind_job(a, t, job, ctx));
    INSERT_PAYLOADS.add(script, &new, |a, (t, job)| bind_payload(a, t.job.seq, job));

    let written = |how: Write| plan.jobs.iter().filter(move |t| t.write == how).collect::<Vec<_>>();
    UPDATE_PROGRESS.add(script, &written(Write::Progress), |a, t| bind_progress(a, t, ctx));
    UPDATE_WHOLE.add(script, &written(Write::Whole), |a, t| bind_whole(a, t, ctx));
    INSERT_ATTEMPTS.add(script, &plan.attempts, |a, (seq, t)| bind_attempt(a, *seq, t));
    INSERT_RESULTS.add(script, &plan.results, |a, (seq, r)| bind_result(a, *seq, r));
}

fn bind_job(a: &mut Args, t: &Touched, new: &NewJob, ctx: &CommitContext<'_>) {
    let deadline = new.deadline.map(|d| d.0);
    // As accepted: a change in the same group is written over it.
    let (claimable_at, claim_owner) =
        if t.claimed { (ctx.claim_until, Some(ctx.owner.0.as_str())) } else { (t.job.available_at, None) };
    push_id(a.push(t.job.seq), &new.id);
    a.push(new.max_attempts).push(new.max_attempts).push(new.created_at.0).push(t.job.available_at.0);
    a.push(claimable_at.0).maybe_text(claim_owner).push(deadline).push(deadline);
    a.text(new.mission.as_str()).text(new.queue.as_str()).text(new.tool.as_str()).maybe_text(t.job.labels.as_deref());
    a.maybe_text(new.idempotency_key.as_deref()).push(new.body_hash.map(Vec::from));
    a.push(new.given_hash.map(Vec::from)).push(t.job.lifetime.map(rows::micros));
    a.push(new.retry.base.map(rows::micros)).push(new.retry.cap.map(rows::micros));
}

fn bind_payload(a: &mut Args, seq: i64, job: &NewJob) {
    a.push(seq).push(rows::micros(job.timeout)).push(job.run_at.map(|m| m.0)).push(job.reuse);
    a.maybe_text(job.task.as_deref()).push(job.schedule_id.map(|id| id.as_bytes().to_vec()));
    a.push(job.scheduled_at.map(|m| m.0));
    a.maybe_text(job.traceparent.as_deref()).maybe_text(job.request_id.as_deref()).text(&job.args);
}

fn bind_progress(a: &mut Args, t: &Touched, ctx: &CommitContext<'_>) {
    let j = &t.job;
    a.push(j.seq).push(j.state as i16).push(j.queued_at.map(|m| m.0)).push(j.started_at.map(|m| m.0));
    a.maybe_text(j.worker.as_deref()).push(j.stream_seq).push(j.version).push(t.timers(ctx.claim_until).checked_at);
}

fn bind_whole(a: &mut Args, t: &Touched, ctx: &CommitContext<'_>) {
    let (j, timers) = (&t.job, t.timers(ctx.claim_until));
    a.push(j.seq).push(j.state as i16).push(j.attempt.get()).push(j.attempt_limit).push(j.version).push(j.republished);
    a.push(j.stream_seq).push(j.available_at.0).push(timers.claimable_at).push(j.deadline.map(|d| d.0));
    a.push(timers.expires_at).push(timers.checked_at).push(j.queued_at.map(|m| m.0)).push(j.started_at.map(|m| m.0));
    a.push(j.finished_at.map(|m| m.0)).maybe_text(j.worker.as_deref());
    push_error(a, j.error.as_ref());
}

fn bind_attempt(a: &mut Args, seq: i64, t: &AttemptEffect) {
    a.push(seq).push(t.attempt.get()).text(t.outcome).push(i64::try_from(t.delivery).unwrap_or(i64::MAX));
    a.push(t.started_at.map(|m| m.0)).push(t.finished_at.0).push(t.retry_at.map(|m| m.0));
    push_error(a.maybe_text(t.worker.as_deref()), t.error.as_ref());
}

fn bind_result(a: &mut Args, seq: i64, r: &ResultEffect) {
    let output_ref = r.output_ref.as_ref();
    let output_ref = output_ref.map(|o| serde_json::to_string(o).expect("strings and a number are always JSON"));
    a.push(seq).push(output_ref).push(r.replay_of.map(|id| id.as_bytes().to_vec())).maybe_text(r.output.as_deref());
}

fn write_letters(script: &mut Script, plan: &Plan, ctx: &CommitContext<'_>) {
    MARK_REDRIVEN.add_with(script, |a| _ = a.push(ctx.now.0), &plan.redriven, push_id);
    INSERT_LETTERS.add(script, &plan.letters, |a, l| bind_letter(a, l, plan, ctx));
}

fn bind_letter(a: &mut Args, l: &Letter, plan: &Plan, ctx: &CommitContext<'_>) {
    a.text(&l.id).push(l.job.map(|(_, id)| id.as_bytes().to_vec()));
    a.text(&l.mission).text(&l.queue).text(&l.tool).text(l.reason.as_str());
    a.push(l.at.0).push(plan.is_redriven(l).then_some(ctx.now.0));
    push_error(a, Some(&l.error));
}

fn write_outbox(script: &mut Script, new: &[OutboxRow], group: &Group, ctx: &CommitContext<'_>) {
    let owner: Arc<str> = ctx.owner.0.as_str().into();
    let (until, owner) = if group.claim_outbox { (ctx.claim_until.0, Some(owner)) } else { (0, None) };
    INSERT_OUTBOX.add(script, new, |a, m| {
        a.push(m.seq).push(until).push(owner.clone()).push(ctx.now.0);
        a.text(&m.subject).text(&m.msg_id).push(m.payload.clone());
    });
    DELETE_OUTBOX.add(script, &group.outbox_sent, |a, seq| _ = a.push(*seq));
    PARK.add(script, &group.outbox_parked, |a, p| _ = a.push(p.seq).push(ctx.now.0).text(p.code).text(&p.reason));
    DELETE_OUTBOX.add(script, &group.outbox_parked, |a, p| _ = a.push(p.seq));
    if !group.outbox_parked.is_empty() {
        SHORTEN.add(script, &[PARKED_MAX], |a, kept| _ = a.push(*kept));
    }
}

fn push_error(a: &mut Args, error: Option<&JobError>) {
    a.maybe_text(error.map(|e| e.class.as_str()));
    a.maybe_text(error.map(|e| e.message.as_str())).maybe_text(error.map(|e| e.log_tail.as_str()));
}

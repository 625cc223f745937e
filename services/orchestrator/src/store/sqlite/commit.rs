//! The hot path: one group, one transaction, about a dozen statements whatever its size.

use super::connection::Writer;
use super::readers::{self, Columns};
use super::sql::Args;
use super::statements::{
    ATTEMPTS, CURRENTS, DELETE_OUTBOX, INSERT_ATTEMPTS, INSERT_JOBS, INSERT_LETTERS, INSERT_OUTBOX, INSERT_PAYLOADS,
    INSERT_RESULTS, KNOWN_LETTERS, MARK_REDRIVEN, PAYLOADS, TAKEN_IDS, TAKEN_KEYS, UPDATE_PROGRESS, UPDATE_WHOLE,
    WHOLE_JOBS,
};
use crate::model::{Job, JobError, NewJob};
use crate::store::fault::Fault;
use crate::store::plan::{self, Found, Letter, LetterDetails, Plan, Taken, Touched, Write};
use crate::store::rows;
use crate::store::{CommitContext, Committed, Group, OutboxRow, events};
use agentforge_message_id::JobId;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::collections::HashMap;

/// Applies `group` in a transaction of its own.
pub(super) async fn commit(w: &mut Writer, group: Group, ctx: &CommitContext<'_>) -> Result<Committed, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let numbers = Numbers { next_job: &mut w.next_job, next_outbox: &mut w.next_outbox };
    let committed = apply(&mut tx, numbers, group, ctx, Claim::ForUs).await?;
    tx.commit().await?;
    Ok(committed)
}

/// The row numbers that the writer gives.
pub(super) struct Numbers<'w> {
    pub next_job: &'w mut i64,
    pub next_outbox: &'w mut i64,
}

/// Whether new rows of the outbox are claimed for the process that commits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    ForUs,
    ForNobody,
}

/// Applies `group` inside a transaction.
pub(super) async fn apply(
    c: &mut SqliteConnection,
    numbers: Numbers<'_>,
    group: Group,
    ctx: &CommitContext<'_>,
    claim: Claim,
) -> Result<Committed, Fault> {
    let found = look_up(c, &group).await?;
    let mut plan = plan::fold(&group, ctx, found, || take(numbers.next_job), rand::random::<f64>);
    let details = letter_details(c, &plan).await?;
    let outbox = plan.take_outbox(&group, &details, || take(numbers.next_outbox));
    write_jobs(c, &group, &plan, ctx).await?;
    write_letters(c, &plan, ctx).await?;
    write_outbox(c, &outbox, &group.outbox_sent, ctx, claim).await?;
    let existing = whole_jobs(c, &plan.existing()).await?;
    plan.answer(group, &existing, outbox).ok_or_else(|| Fault::row("job", "it has no payload"))
}

fn take(next: &mut i64) -> i64 {
    let n = *next;
    *next += 1;
    n
}

async fn look_up(c: &mut SqliteConnection, group: &Group) -> Result<Found, Fault> {
    let by_id = TAKEN_IDS.fetch(c, &plan::ids_to_check(group), push_id).await?;
    let by_key = TAKEN_KEYS
        .fetch(c, &plan::keys_to_check(group), |a, (mission, key)| {
            a.push(*mission).push(*key);
        })
        .await?;
    let currents = CURRENTS.fetch(c, &plan::ids_to_load(group), push_id).await?;
    let letters: Vec<String> = group.rejects.iter().map(events::rejected_id).collect();
    let letters = KNOWN_LETTERS.fetch(c, &letters, |a, id| _ = a.push(id.as_str())).await?;
    Ok(Found {
        taken: by_id.iter().chain(&by_key).map(taken).collect::<Result<_, _>>()?,
        currents: currents.iter().map(readers::current).collect::<Result<_, _>>()?,
        letters: letters.iter().map(|r| Columns::of(r).take()).collect::<Result<_, _>>()?,
    })
}

fn taken(row: &SqliteRow) -> Result<Taken, Fault> {
    let mut c = Columns::of(row);
    Ok(Taken { id: rows::job_id(c.take()?)?, mission: c.take()?, key: c.take()?, body_hash: c.take()? })
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

async fn write_jobs(c: &mut SqliteConnection, group: &Group, plan: &Plan, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    let new = |t: &Touched| if let Write::Insert(n) = t.write { Some(n) } else { None };
    let inserted: Vec<(&Touched, &NewJob)> =
        plan.jobs.iter().filter_map(|t| Some((t, &group.submits[new(t)?].job))).collect();
    let of = |kind: Write| plan.jobs.iter().filter(move |t| t.write == kind).collect::<Vec<_>>();

    INSERT_JOBS.execute(c, &inserted, |a, (t, job)| bind_job(a, t, job, ctx)).await?;
    INSERT_PAYLOADS.execute(c, &inserted, |a, (t, job)| bind_payload(a, t.job.seq, job)).await?;
    UPDATE_PROGRESS.execute(c, &of(Write::Progress), |a, t| bind_progress(a, t, ctx)).await?;
    UPDATE_WHOLE.execute(c, &of(Write::Whole), |a, t| bind_whole(a, t, ctx)).await?;
    INSERT_ATTEMPTS
        .execute(c, &plan.attempts, |a, (seq, t)| {
            a.push(*seq).push(i64::from(t.attempt.get())).push(t.outcome).push(i64::try_from(t.delivery).unwrap_or(0));
            a.push(t.started_at.map(|m| m.0)).push(t.finished_at.0).push(t.retry_at.map(|m| m.0));
            a.push(t.worker.as_deref());
            push_error(a, t.error.as_ref());
        })
        .await?;
    INSERT_RESULTS
        .execute(c, &plan.results, |a, (seq, r)| {
            let output_ref = r.output_ref.as_ref();
            let output_ref = output_ref.map(|o| serde_json::to_string(o).expect("strings and a number are always JSON"));
            a.push(*seq).push(output_ref).push(r.replay_of.map(|id| id.as_bytes().to_vec())).push(r.output.as_deref());
        })
        .await?;
    Ok(())
}

fn bind_job(a: &mut Args, t: &Touched, new: &NewJob, ctx: &CommitContext<'_>) {
    let (j, timers) = (&t.job, t.timers(ctx.claim_until));
    push_id(a.push(j.seq), &j.id);
    a.push(j.state as i16).push(i64::from(j.attempt.get())).push(i64::from(j.attempt_limit));
    a.push(i64::from(j.max_attempts)).push(j.version).push(i64::from(j.republished)).push(j.stream_seq);
    a.push(j.created_at.0).push(j.available_at.0).push(timers.claimable_at);
    a.push(t.claimed.then_some(ctx.owner.0.as_str())).push(j.deadline.map(|d| d.0)).push(timers.expires_at);
    a.push(timers.checked_at).push(j.queued_at.map(|m| m.0)).push(j.started_at.map(|m| m.0));
    a.push(j.finished_at.map(|m| m.0)).push(j.mission.as_str()).push(j.queue.as_str()).push(j.tool.as_str());
    a.push(j.worker.as_deref()).push(j.labels.as_deref()).push(new.idempotency_key.as_deref());
    a.push(new.body_hash.as_ref().map(<[u8; 32]>::as_slice));
    push_error(a, j.error.as_ref());
}

fn bind_payload(a: &mut Args, seq: i64, job: &NewJob) {
    a.push(seq).push(rows::micros(job.timeout)).push(job.run_at.map(|m| m.0)).push(job.reuse);
    a.push(job.task.as_deref()).push(job.schedule_id.map(|id| id.as_bytes().to_vec()));
    a.push(job.traceparent.as_deref()).push(job.args.as_str());
}

fn bind_progress(a: &mut Args, t: &Touched, ctx: &CommitContext<'_>) {
    let j = &t.job;
    a.push(j.seq).push(j.state as i16).push(j.queued_at.map(|m| m.0)).push(j.started_at.map(|m| m.0));
    a.push(j.worker.as_deref()).push(j.stream_seq).push(j.version).push(t.timers(ctx.claim_until).checked_at);
}

fn bind_whole(a: &mut Args, t: &Touched, ctx: &CommitContext<'_>) {
    let (j, timers) = (&t.job, t.timers(ctx.claim_until));
    a.push(j.seq).push(j.state as i16).push(i64::from(j.attempt.get())).push(i64::from(j.attempt_limit));
    a.push(j.version).push(i64::from(j.republished)).push(j.stream_seq).push(j.available_at.0);
    a.push(timers.claimable_at).push(j.deadline.map(|d| d.0)).push(timers.expires_at).push(timers.checked_at);
    a.push(j.queued_at.map(|m| m.0)).push(j.started_at.map(|m| m.0)).push(j.finished_at.map(|m| m.0));
    a.push(j.worker.as_deref());
    push_error(a, j.error.as_ref());
}

async fn write_letters(c: &mut SqliteConnection, plan: &Plan, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    MARK_REDRIVEN.execute(c, |a| _ = a.push(ctx.now.0), &plan.redriven, push_id).await?;
    INSERT_LETTERS.execute(c, &plan.letters, |a, l| bind_letter(a, l, plan, ctx)).await?;
    Ok(())
}

fn bind_letter(a: &mut Args, l: &Letter, plan: &Plan, ctx: &CommitContext<'_>) {
    a.push(l.id.as_str()).push(l.job.map(|(_, id)| id.as_bytes().to_vec()));
    a.push(l.mission.as_str()).push(l.queue.as_str()).push(l.tool.as_str()).push(l.reason.as_str());
    a.push(l.at.0).push(plan.is_redriven(l).then_some(ctx.now.0));
    push_error(a, Some(&l.error));
}

async fn write_outbox(
    c: &mut SqliteConnection,
    new: &[OutboxRow],
    sent: &[i64],
    ctx: &CommitContext<'_>,
    claim: Claim,
) -> Result<(), Fault> {
    let (until, owner) = match claim {
        Claim::ForUs => (ctx.claim_until.0, Some(ctx.owner.0.as_str())),
        Claim::ForNobody => (0, None),
    };
    INSERT_OUTBOX
        .execute(c, new, |a, m| {
            a.push(m.seq).push(until).push(owner).push(ctx.now.0);
            a.push(m.subject.as_str()).push(m.msg_id.as_str()).push(m.payload.as_slice());
        })
        .await?;
    DELETE_OUTBOX.execute(c, |_| {}, sent, |a, seq| _ = a.push(*seq)).await?;
    Ok(())
}

pub(super) fn push_id(a: &mut Args, id: &JobId) {
    a.push(id.as_bytes().as_slice());
}

fn push_error(a: &mut Args, error: Option<&JobError>) {
    a.push(error.map(|e| e.class.as_str())).push(error.map(|e| e.message.as_str())).push(error.map(|e| e.log_tail.as_str()));
}

//! The hot path: one group, one transaction, about a dozen statements regardless of its size.

use super::audit;
use super::connection::Writer;
use super::parked::{PARK, SHORTEN};
use super::recent::Recent;
use super::sql::{Args, Script, push_id};
use super::statements::{
    ATTEMPTS, CURRENTS, DELETE_OUTBOX, INSERT_ATTEMPTS, INSERT_JOBS, INSERT_LETTERS, INSERT_OUTBOX, INSERT_PAYLOADS,
    INSERT_RESULTS, KNOWN_LETTERS, MARK_REDRIVEN, PAYLOADS, RELEASE_KEYS, TAKEN_IDS, TAKEN_KEYS, UPDATE_PROGRESS,
    UPDATE_WHOLE, WHOLE_JOBS,
};
use crate::model::{Job, JobError, NewJob};
use crate::store::columns::micros;
use crate::store::fault::Fault;
use crate::store::plan::{self, Found, Letter, LetterDetails, Plan, Subjects, Touched, Write};
use crate::store::{CommitContext, Committed, Group, OutboxRow, PARKED_MAX};
use crate::store::{rows, spec};
use crate::transition::{AttemptEffect, Current, ResultEffect};
use agentforge_audit::Head;
use agentforge_message_id::JobId;
use sqlx::sqlite::SqliteConnection;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// Applies `group` in a transaction of its own.
///
/// After an error the connection is closed, which rolls back, and the memory of recent jobs goes with it.
pub(super) async fn commit(w: &mut Writer, group: Group, ctx: &CommitContext<'_>) -> Result<Committed, Fault> {
    let numbers = Numbers { next_job: &mut w.next_job, next_outbox: &mut w.next_outbox, audit: &mut w.audit };
    let ends = Ends::Commits { recent: &mut w.recent, completed: &w.completed };
    transact(&mut w.connection, numbers, group, ctx, ends).await
}

/// Applies `group` inside a transaction that is the caller's.
pub(super) async fn apply(
    c: &mut SqliteConnection,
    numbers: Numbers<'_>,
    group: Group,
    ctx: &CommitContext<'_>,
) -> Result<Committed, Fault> {
    transact(c, numbers, group, ctx, Ends::Caller).await
}

/// Who begins and commits the transaction.
enum Ends<'w> {
    /// The group's own statements: they travel with the others. `recent` holds jobs that need no reading; `completed`
    /// shows when the statements are done.
    Commits { recent: &'w mut Recent, completed: &'w Notify },
    /// The caller, around other statements of its own.
    Caller,
}

/// The row numbers that the writer gives.
pub(super) struct Numbers<'w> {
    pub next_job: &'w mut i64,
    pub next_outbox: &'w mut i64,
    /// The last entry of the audit log.
    pub audit: &'w mut Head,
}

/// One group, from top to bottom.
async fn transact(
    c: &mut SqliteConnection,
    numbers: Numbers<'_>,
    group: Group,
    ctx: &CommitContext<'_>,
    mut ends: Ends<'_>,
) -> Result<Committed, Fault> {
    // Read. There is no other writer: what is read before the transaction begins is still true when it does.
    let subjects = plan::Subjects::of(&group);
    let known = match &mut ends {
        Ends::Commits { recent, .. } => subjects.changed.iter().filter_map(|id| recent.take(id)).collect(),
        Ends::Caller => vec![],
    };
    let found = look_up(c, &subjects, known).await?;

    // Decide.
    let mut plan = plan::decide(&group, ctx, found, || take(numbers.next_job), rand::random::<f64>);
    let details = letter_details(c, &plan).await?;
    let mut outbox = plan.take_outbox(&details, || take(numbers.next_outbox));
    let entries = audit::chain(numbers.audit, plan.entries(ctx.now));
    outbox.extend(audit::events(&entries, ctx.mission.as_str(), || take(numbers.next_outbox)));
    // Submissions that were stored before are answered with their job as this commit leaves it.
    let repeated = plan.existing();

    // Write. Nothing is read after it in most groups, and the script ends the transaction.
    let mut script = Script::for_group(&group);
    if matches!(ends, Ends::Commits { .. }) {
        script.add_plain("BEGIN IMMEDIATE");
    }
    write_jobs(&mut script, &plan, ctx);
    write_letters(&mut script, &plan, ctx);
    write_outbox(&mut script, &outbox, &group, ctx);
    audit::write(&mut script, &entries);
    let existing = match &ends {
        Ends::Commits { completed, .. } if repeated.is_empty() => {
            script.add_plain("COMMIT");
            script.run(c, Some(*completed)).await?;
            HashMap::new()
        }
        Ends::Commits { .. } => {
            script.run(c, None).await?;
            let existing = whole_jobs(c, &repeated).await?;
            sqlx::query("COMMIT").execute(c).await?;
            existing
        }
        Ends::Caller => {
            script.run(c, None).await?;
            whole_jobs(c, &repeated).await?
        }
    };

    // Answer.
    let mut answers = plan.answers(&existing, outbox).ok_or_else(|| Fault::row("job", "it has no payload"))?;
    if let Ends::Commits { recent, .. } = ends {
        // What is remembered of a job that was not read does not know that it lost its key.
        answers.released.iter().for_each(|id| _ = recent.take(id));
        recent.keep(std::mem::take(&mut answers.jobs));
    }
    Ok(answers.to(group))
}

fn take(next: &mut i64) -> i64 {
    let n = *next;
    *next += 1;
    n
}

async fn look_up(c: &mut SqliteConnection, subjects: &Subjects<'_>, known: Vec<Current>) -> Result<Found, Fault> {
    let by_id = TAKEN_IDS.fetch(c, &subjects.ids, push_id).await?;
    let by_key = TAKEN_KEYS.fetch(c, &subjects.keys, |a, (mission, key)| _ = a.text(mission).text(key)).await?;
    let is_known: HashSet<JobId> = known.iter().map(|job| job.id).collect();
    let missing: Vec<JobId> = subjects.changed.iter().copied().filter(|id| !is_known.contains(id)).collect();
    let mut currents = known;
    for row in &CURRENTS.fetch(c, &missing, push_id).await? {
        currents.push(rows::current(row)?);
    }
    let letters = KNOWN_LETTERS.fetch(c, &subjects.letters, |a, id| _ = a.text(id)).await?;
    Ok(Found {
        taken: by_id.iter().chain(&by_key).map(rows::taken).collect::<Result<_, _>>()?,
        currents,
        letters: letters.iter().map(rows::letter_id).collect::<Result<_, _>>()?,
    })
}

async fn letter_details(c: &mut SqliteConnection, plan: &Plan<'_>) -> Result<HashMap<i64, LetterDetails>, Fault> {
    let seqs = plan.seqs_of_letters();
    let mut details: HashMap<i64, LetterDetails> = HashMap::with_capacity(seqs.len());
    for row in PAYLOADS.fetch(c, &seqs, |a, seq| _ = a.push(*seq)).await? {
        let (seq, args, traceparent) = rows::payload(&row)?;
        details.insert(seq, LetterDetails { args, traceparent, attempts: vec![] });
    }
    for row in ATTEMPTS.fetch(c, &seqs, |a, seq| _ = a.push(*seq)).await? {
        let (seq, attempt) = rows::attempt_of_job(&row)?;
        details.entry(seq).or_default().attempts.push(attempt);
    }
    Ok(details)
}

/// Jobs by id, with their payloads and results.
pub(super) async fn whole_jobs(c: &mut SqliteConnection, ids: &[JobId]) -> Result<HashMap<JobId, Job>, Fault> {
    let rows = WHOLE_JOBS.fetch(c, ids, push_id).await?;
    rows.iter().map(|row| rows::job(row).map(|job| (job.id, job))).collect()
}

fn write_jobs(script: &mut Script, plan: &Plan<'_>, ctx: &CommitContext<'_>) {
    let new = plan.new_jobs();
    RELEASE_KEYS.add(script, &plan.released, push_id);
    INSERT_JOBS.add(script, &new, |a, (t, job)| bind_job(a, t, job, ctx));
    INSERT_PAYLOADS.add(script, &new, |a, (t, job)| bind_payload(a, t.job.seq, job));

    UPDATE_PROGRESS.add(script, &plan.written(Write::Progress), |a, t| bind_progress(a, t, ctx));
    UPDATE_WHOLE.add(script, &plan.written(Write::Whole), |a, t| bind_whole(a, t, ctx));
    INSERT_ATTEMPTS.add(script, &plan.attempts, |a, (seq, t)| bind_attempt(a, *seq, t));
    INSERT_RESULTS.add(script, &plan.results, |a, (seq, r)| bind_result(a, *seq, r));
}

fn bind_job(a: &mut Args, t: &Touched, new: &NewJob, ctx: &CommitContext<'_>) {
    let deadline = new.deadline.map(|d| d.0);
    // As accepted: a change in the same group is written over it.
    let (claimable_at, claim_owner) =
        if t.claimed { (ctx.claim_until, Some(ctx.owner.0.as_str())) } else { (t.job.available_at, None) };
    a.push(t.job.seq).push(new.max_attempts).push(t.job.available_at.0);
    a.push(claimable_at.0).maybe_text(claim_owner).push(deadline).push(deadline);
    a.push(new.body_hash.map(Vec::from)).push(new.given_hash.map(Vec::from)).push(t.job.lifetime.map(micros));
    spec::columns_of("jobs").for_each(|column| a.value((column.value)(new)));
}

fn bind_payload(a: &mut Args, seq: i64, new: &NewJob) {
    a.push(seq);
    spec::columns_of("job_payloads").for_each(|column| a.value((column.value)(new)));
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
    a.maybe_text(j.cancelled_by.as_deref());
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

fn write_letters(script: &mut Script, plan: &Plan<'_>, ctx: &CommitContext<'_>) {
    MARK_REDRIVEN.add_with(script, |a| _ = a.push(ctx.now.0), &plan.redriven, push_id);
    INSERT_LETTERS.add(script, &plan.letters, |a, l| bind_letter(a, l, plan, ctx));
}

fn bind_letter(a: &mut Args, l: &Letter, plan: &Plan<'_>, ctx: &CommitContext<'_>) {
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

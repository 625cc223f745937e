//! What a plan says, written to Postgres: each statement takes its rows as one array a column.

use super::text::{bytes, clean, maybe_clean};
use crate::model::{JobError, NewJob};
use crate::store::columns::micros;
use crate::store::fault::Fault;
use crate::store::plan::{Plan, Touched, Write};
use crate::store::spec::{self, Value};
use crate::store::{CommitContext, Group, OutboxRow};
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Postgres, query, query_scalar};
use std::borrow::Cow;
use std::sync::LazyLock;

/// One column of many rows.
fn column<'r, T, V>(rows: &'r [T], value: impl Fn(&'r T) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

/// Three columns of errors: class, message, log.
type Errors<'r> = (Vec<Option<&'static str>>, Vec<Option<Cow<'r, str>>>, Vec<Option<Cow<'r, str>>>);

fn errors<'r, T>(rows: &'r [T], error: impl Fn(&'r T) -> Option<&'r JobError>) -> Errors<'r> {
    (
        column(rows, |r| error(r).map(|e| e.class.as_str())),
        column(rows, |r| error(r).map(|e| clean(&e.message))),
        column(rows, |r| error(r).map(|e| clean(&e.log_tail))),
    )
}

pub(super) async fn jobs(c: &mut PgConnection, plan: &Plan<'_>, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    let new = plan.new_jobs();
    release_keys(c, plan).await?;
    insert_jobs(c, &new, ctx).await?;
    update_progress(c, &plan.written(Write::Progress), ctx).await?;
    update_whole(c, plan, ctx).await
}

/// Jobs that ended without success (5 to 8) give their keys away. One that another replica put back meanwhile
/// keeps its key: then the insert collides, and the group is looked up again.
async fn release_keys(c: &mut PgConnection, plan: &Plan<'_>) -> Result<(), Fault> {
    if plan.released.is_empty() {
        return Ok(());
    }
    query(
        "WITH ended AS (SELECT seq FROM jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE) \
         UPDATE jobs SET former_key = idempotency_key, idempotency_key = NULL FROM ended \
         WHERE jobs.seq = ended.seq AND idempotency_key IS NOT NULL AND state IN (5, 6, 7, 8)",
    )
    .bind(bytes(&plan.released))
    .execute(c)
    .await?;
    Ok(())
}

/// Columns of a new row, in the order in which they are bound after `before` others; what is the same for all follows `=`.
/// Also how many are bound.
fn insert_into(table: &'static str, own: &[&str], before: usize) -> (String, usize) {
    let own = own.iter().map(|name| name.split_once('=').map_or((*name, None), |(name, value)| (name, Some(value))));
    let columns: Vec<_> = own.chain(spec::columns_of(table).map(|column| (column.name, None))).collect();
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let bound: Vec<_> = columns.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
    let count = bound.len();
    let numbers = (1..=count).map(|n| format!("${}", before + n)).collect::<Vec<_>>().join(", ");
    let values = columns.iter().map(|(name, value)| value.unwrap_or(name)).collect::<Vec<_>>().join(", ");
    let bound = bound.join(", ");
    (format!("INSERT INTO {table} ({names}) SELECT {values} FROM UNNEST({numbers}) AS n ({bound})"), count)
}

/// As accepted; what changed in the same group is written over it. Its description comes last, and then its payload: one
/// statement, so one answer to wait for.
static INSERT_JOBS: LazyLock<String> = LazyLock::new(|| {
    let own = [
        "seq",
        "state=1",
        "attempt=1",
        "attempt_limit",
        "version=1",
        "republished=0",
        "available_at",
        "claimable_at",
        "claim_owner",
        "deadline",
        "expires_at=deadline",
        "body_hash",
        "given_hash",
        "lifetime_us",
    ];
    let (jobs, before) = insert_into("jobs", &own, 0);
    let (payloads, _) = insert_into("job_payloads", &["seq"], before);
    format!("WITH new AS ({jobs}) {payloads}")
});

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Binds the columns of a table that come from descriptions.
fn bind_described<'q>(mut insert: Statement<'q>, table: &'static str, new: &[(&Touched, &NewJob)]) -> Statement<'q> {
    for column in spec::columns_of(table) {
        let values: Vec<Value<'_>> = new.iter().map(|(_, job)| (column.value)(job)).collect();
        insert = bind_column(insert, values);
    }
    insert
}

/// All values of a column are of one kind.
fn bind_column<'q>(insert: Statement<'q>, values: Vec<Value<'_>>) -> Statement<'q> {
    macro_rules! all {
        ($kind:ident, |$value:ident| $shown:expr) => {
            insert.bind(
                values
                    .iter()
                    .map(|value| match value {
                        Value::$kind($value) => $shown,
                        other => unreachable!("a column has values of one kind, not also {other:?}"),
                    })
                    .collect::<Vec<_>>(),
            )
        };
    }
    match values.first() {
        None => insert,
        Some(Value::Number(_)) => all!(Number, |n| *n),
        Some(Value::Truth(_)) => all!(Truth, |truth| *truth),
        Some(Value::Text(_)) => all!(Text, |text| maybe_clean(text.as_deref())),
        Some(Value::Bytes(_)) => all!(Bytes, |bytes| *bytes),
    }
}

async fn insert_jobs(c: &mut PgConnection, new: &[(&Touched, &NewJob)], ctx: &CommitContext<'_>) -> Result<(), Fault> {
    if new.is_empty() {
        return Ok(());
    }
    let insert = query(INSERT_JOBS.as_str())
        .bind(column(new, |(t, _)| t.job.seq))
        .bind(column(new, |(_, j)| i64::from(j.max_attempts)))
        .bind(column(new, |(t, _)| t.job.available_at.0))
        .bind(column(new, |(t, _)| if t.claimed { ctx.claim_until.0 } else { t.job.available_at.0 }))
        .bind(column(new, |(t, _)| t.claimed.then_some(ctx.owner.0.as_str())))
        .bind(column(new, |(_, j)| j.deadline.map(|d| d.0)))
        .bind(column(new, |(_, j)| j.body_hash.as_ref().map(<[u8; 32]>::as_slice)))
        .bind(column(new, |(_, j)| j.given_hash.as_ref().map(<[u8; 32]>::as_slice)))
        .bind(column(new, |(t, _)| t.job.lifetime.map(micros)));
    let insert = bind_described(insert, "jobs", new).bind(column(new, |(t, _)| t.job.seq));
    bind_described(insert, "job_payloads", new).execute(c).await?;
    Ok(())
}

async fn update_progress(c: &mut PgConnection, jobs: &[&Touched], ctx: &CommitContext<'_>) -> Result<(), Fault> {
    if jobs.is_empty() {
        return Ok(());
    }
    query(
        "UPDATE jobs SET state = n.state, queued_at = n.queued_at, started_at = n.started_at, worker = n.worker, \
           stream_seq = n.stream_seq, version = n.version, checked_at = coalesce(jobs.checked_at, n.checked_at), \
           claimable_at = NULL, claim_owner = NULL \
         FROM UNNEST($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], \
           $8::bigint[]) \
         AS n (seq, state, queued_at, started_at, worker, stream_seq, version, checked_at) WHERE jobs.seq = n.seq",
    )
    .bind(column(jobs, |t| t.job.seq))
    .bind(column(jobs, |t| t.job.state as i16))
    .bind(column(jobs, |t| t.job.queued_at.map(|m| m.0)))
    .bind(column(jobs, |t| t.job.started_at.map(|m| m.0)))
    .bind(column(jobs, |t| t.job.worker.as_deref()))
    .bind(column(jobs, |t| t.job.stream_seq))
    .bind(column(jobs, |t| t.job.version))
    .bind(column(jobs, |t| t.timers(ctx.claim_until).checked_at))
    .execute(c)
    .await?;
    Ok(())
}

/// Jobs as they are now, the attempts that ended and their results: one statement, so one answer to wait for.
const UPDATE_WHOLE: &str = "\
    WITH attempts AS ( \
      INSERT INTO job_attempts (seq, attempt, outcome, delivery, started_at, finished_at, retry_at, worker, \
        error_class, error_message, error_log) \
      SELECT * FROM UNNEST($21::bigint[], $22::bigint[], $23::text[], $24::bigint[], $25::bigint[], $26::bigint[], \
        $27::bigint[], $28::text[], $29::text[], $30::text[], $31::text[])), \
    results AS ( \
      INSERT INTO job_results (seq, output_ref, replay_of, output) \
      SELECT * FROM UNNEST($32::bigint[], $33::text[], $34::bytea[], $35::text[])) \
    UPDATE jobs SET state = n.state, attempt = n.attempt, attempt_limit = n.attempt_limit, version = n.version, \
      republished = n.republished, stream_seq = n.stream_seq, available_at = n.available_at, \
      claimable_at = n.claimable_at, claim_owner = NULL, deadline = n.deadline, expires_at = n.expires_at, \
      checked_at = n.checked_at, queued_at = n.queued_at, started_at = n.started_at, \
      finished_at = n.finished_at, worker = n.worker, error_class = n.error_class, \
      error_message = n.error_message, error_log = n.error_log, cancelled_by = n.cancelled_by \
    FROM UNNEST($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
      $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], \
      $14::bigint[], $15::bigint[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[]) \
    AS n (seq, state, attempt, attempt_limit, version, republished, stream_seq, available_at, claimable_at, \
      deadline, expires_at, checked_at, queued_at, started_at, finished_at, worker, error_class, error_message, \
      error_log, cancelled_by) \
    WHERE jobs.seq = n.seq";

async fn update_whole(c: &mut PgConnection, plan: &Plan<'_>, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    let (jobs, tries, results) = (plan.written(Write::Whole), &plan.attempts, &plan.results);
    if jobs.is_empty() && tries.is_empty() && results.is_empty() {
        return Ok(());
    }
    let update = bind_whole(query(UPDATE_WHOLE), &jobs, ctx);
    let (classes, messages, logs) = errors(tries, |(_, t)| t.error.as_ref());
    let json = |o| serde_json::to_string(o).expect("strings and a number are always JSON");
    update
        .bind(column(tries, |(seq, _)| *seq))
        .bind(column(tries, |(_, t)| i64::from(t.attempt.get())))
        .bind(column(tries, |(_, t)| t.outcome))
        .bind(column(tries, |(_, t)| i64::try_from(t.delivery).unwrap_or(i64::MAX)))
        .bind(column(tries, |(_, t)| t.started_at.map(|m| m.0)))
        .bind(column(tries, |(_, t)| t.finished_at.0))
        .bind(column(tries, |(_, t)| t.retry_at.map(|m| m.0)))
        .bind(column(tries, |(_, t)| t.worker.as_deref()))
        .bind(classes)
        .bind(messages)
        .bind(logs)
        .bind(column(results, |(seq, _)| *seq))
        .bind(column(results, |(_, r)| r.output_ref.as_ref().map(json)))
        .bind(column(results, |(_, r)| r.replay_of.as_ref().map(|id| id.as_bytes().as_slice())))
        .bind(column(results, |(_, r)| maybe_clean(r.output.as_deref())))
        .execute(c)
        .await?;
    Ok(())
}

fn bind_whole<'q>(update: Statement<'q>, jobs: &[&'q Touched], ctx: &CommitContext<'_>) -> Statement<'q> {
    let timers = column(jobs, |t| t.timers(ctx.claim_until));
    let (classes, messages, logs) = errors(jobs, |t| t.job.error.as_ref());
    update
        .bind(column(jobs, |t| t.job.seq))
        .bind(column(jobs, |t| t.job.state as i16))
        .bind(column(jobs, |t| i64::from(t.job.attempt.get())))
        .bind(column(jobs, |t| i64::from(t.job.attempt_limit)))
        .bind(column(jobs, |t| t.job.version))
        .bind(column(jobs, |t| i64::from(t.job.republished)))
        .bind(column(jobs, |t| t.job.stream_seq))
        .bind(column(jobs, |t| t.job.available_at.0))
        .bind(column(&timers, |t| t.claimable_at))
        .bind(column(jobs, |t| t.job.deadline.map(|d| d.0)))
        .bind(column(&timers, |t| t.expires_at))
        .bind(column(&timers, |t| t.checked_at))
        .bind(column(jobs, |t| t.job.queued_at.map(|m| m.0)))
        .bind(column(jobs, |t| t.job.started_at.map(|m| m.0)))
        .bind(column(jobs, |t| t.job.finished_at.map(|m| m.0)))
        .bind(column(jobs, |t| t.job.worker.as_deref()))
        .bind(classes)
        .bind(messages)
        .bind(logs)
        .bind(column(jobs, |t| maybe_clean(t.job.cancelled_by.as_deref())))
}

pub(super) async fn letters(c: &mut PgConnection, plan: &Plan<'_>, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    if !plan.redriven.is_empty() {
        query("UPDATE dead_letters SET redriven_at = $1 WHERE redriven_at IS NULL AND job_id = ANY($2)")
            .bind(ctx.now.0)
            .bind(bytes(&plan.redriven))
            .execute(&mut *c)
            .await?;
    }
    let letters = &plan.letters;
    if letters.is_empty() {
        return Ok(());
    }
    let (classes, messages, logs) = errors(letters, |l| Some(&l.error));
    query(
        "INSERT INTO dead_letters (id, job_id, mission, queue, tool, reason, created_at, redriven_at, error_class, \
           error_message, error_log) \
         SELECT * FROM UNNEST($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], \
           $8::bigint[], $9::text[], $10::text[], $11::text[])",
    )
    .bind(column(letters, |l| clean(&l.id)))
    .bind(column(letters, |l| l.job.as_ref().map(|(_, id)| id.as_bytes().as_slice())))
    .bind(column(letters, |l| clean(&l.mission)))
    .bind(column(letters, |l| clean(&l.queue)))
    .bind(column(letters, |l| l.tool.as_str()))
    .bind(column(letters, |l| l.reason.as_str()))
    .bind(column(letters, |l| l.at.0))
    .bind(column(letters, |l| plan.is_redriven(l).then_some(ctx.now.0)))
    .bind(classes)
    .bind(messages)
    .bind(logs)
    .execute(c)
    .await?;
    Ok(())
}

/// Puts rows aside, and takes out those that are sent.
pub(super) async fn leave_outbox(c: &mut PgConnection, group: &Group, ctx: &CommitContext<'_>) -> Result<(), Fault> {
    super::parked::park(c, &group.outbox_parked, ctx.now).await?;
    if !group.outbox_sent.is_empty() {
        query("DELETE FROM outbox WHERE seq = ANY($1)").bind(&group.outbox_sent).execute(c).await?;
    }
    Ok(())
}

/// Adds rows, claimed by the orchestrator of `ctx` where `claim` says so. Gives them their numbers, which rise in their
/// order.
pub(super) async fn join_outbox(
    c: &mut PgConnection,
    new: &mut [OutboxRow],
    claim: bool,
    ctx: &CommitContext<'_>,
) -> Result<(), Fault> {
    let (until, owner) = if claim { (ctx.claim_until.0, Some(ctx.owner.0.as_str())) } else { (0, None) };
    if new.is_empty() {
        return Ok(());
    }
    let stored: Vec<_> = new.iter().map(|row| row.stored(until)).collect();
    let mut numbers: Vec<i64> = query_scalar(
        "INSERT INTO outbox (claim_until, group_until, claim_owner, created_at, subject, msg_id, payload) \
         SELECT claim_until, group_until, $2, $3, subject, msg_id, payload \
         FROM UNNEST($1::bigint[], $7::bigint[], $4::text[], $5::text[], $6::bytea[]) \
           WITH ORDINALITY AS n (claim_until, group_until, subject, msg_id, payload, place) \
         ORDER BY place RETURNING seq",
    )
    .bind(column(&stored, |m| m.claim_until))
    .bind(owner)
    .bind(ctx.now.0)
    .bind(column(&stored, |m| clean(m.subject)))
    .bind(column(&stored, |m| clean(m.msg_id)))
    .bind(column(&stored, |m| &*m.payload))
    .bind(column(&stored, |m| m.group_until))
    .fetch_all(c)
    .await?;
    drop(stored);
    numbers.sort_unstable();
    for (row, seq) in new.iter_mut().zip(numbers) {
        row.seq = seq;
    }
    Ok(())
}

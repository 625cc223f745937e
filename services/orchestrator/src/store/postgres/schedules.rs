//! Schedules, and their turns: taken under the lock of the schedule's row.

use super::commit;
use super::connection::Session;
use super::readers;
use super::text::{clean, maybe_clean};
use crate::model::Schedule;
use crate::store::fault::Fault;
use crate::store::rows::{micros, schedule_columns};
use crate::store::turn::{Found, judge};
use crate::store::{Act, CommitContext, Fired, Firing, Group, Submit, Submitted};
use agentforge_message_id::{JobId, ScheduleId};
use agentforge_proto::time::Micros;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{query, query_scalar};

pub(super) async fn create(pool: &PgPool, s: &Schedule) -> Result<bool, Fault> {
    let done = query(
        "INSERT INTO schedules (id, name, cron, time_zone, template, paused, created_at, next_run_at, overlap, \
         catch_up, turn_deadline_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(s.id.as_bytes().as_slice())
    .bind(clean(&s.name))
    .bind(clean(&s.cron))
    .bind(clean(&s.time_zone))
    .bind(clean(&s.template))
    .bind(s.paused)
    .bind(s.created_at.0)
    .bind(s.next_run_at.map(|m| m.0))
    .bind(s.overlap as i16)
    .bind(s.catch_up as i16)
    .bind(s.deadline.map(micros))
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn update(pool: &PgPool, s: &Schedule, read_at: Option<Micros>, retime: bool) -> Result<bool, Fault> {
    let done = query(
        "UPDATE schedules SET name = $1, cron = $2, time_zone = $3, template = $4, overlap = $5, catch_up = $6, \
         turn_deadline_us = $7, updated_at = $8, \
         next_run_at = CASE WHEN $9 AND NOT paused THEN $10 ELSE next_run_at END, \
         paused_turn = CASE WHEN $9 THEN NULL ELSE paused_turn END \
         WHERE id = $11 AND updated_at IS NOT DISTINCT FROM $12 \
         AND NOT EXISTS (SELECT 1 FROM schedules other WHERE other.name = $1 AND other.id <> $11)",
    )
    .bind(clean(&s.name))
    .bind(clean(&s.cron))
    .bind(clean(&s.time_zone))
    .bind(clean(&s.template))
    .bind(s.overlap as i16)
    .bind(s.catch_up as i16)
    .bind(s.deadline.map(micros))
    .bind(s.updated_at.map(|m| m.0))
    .bind(retime)
    .bind(s.next_run_at.map(|m| m.0))
    .bind(s.id.as_bytes().as_slice())
    .bind(read_at.map(|m| m.0))
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn one(pool: &PgPool, id: ScheduleId) -> Result<Option<Schedule>, Fault> {
    let sql = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE id = $1");
    let row = query(sql).bind(id.as_bytes().as_slice()).fetch_optional(pool).await?;
    row.as_ref().map(readers::schedule).transpose()
}

pub(super) async fn page(pool: &PgPool, after: Option<&str>, limit: u32) -> Result<Vec<Schedule>, Fault> {
    let sql = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE name > $1 ORDER BY name LIMIT $2");
    let rows = query(sql).bind(after.unwrap_or_default()).bind(i64::from(limit)).fetch_all(pool).await?;
    rows.iter().map(readers::schedule).collect()
}

pub(super) async fn due(pool: &PgPool, now: Micros, limit: u32) -> Result<Vec<Schedule>, Fault> {
    let sql = concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM schedules WHERE next_run_at <= $1 AND NOT paused ORDER BY next_run_at LIMIT $2"
    );
    let rows = query(sql).bind(now.0).bind(i64::from(limit)).fetch_all(pool).await?;
    rows.iter().map(readers::schedule).collect()
}

/// States 1 to 3 are the open ones.
pub(super) async fn waiting(pool: &PgPool, limit: u32) -> Result<Vec<Schedule>, Fault> {
    let sql = concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM schedules WHERE waiting_turn IS NOT NULL AND NOT paused AND NOT EXISTS \
         (SELECT 1 FROM jobs j WHERE j.id = schedules.last_job_id AND j.state <= 3) ORDER BY waiting_turn LIMIT $1"
    );
    let rows = query(sql).bind(i64::from(limit)).fetch_all(pool).await?;
    rows.iter().map(readers::schedule).collect()
}

pub(super) async fn set_paused(
    pool: &PgPool,
    id: ScheduleId,
    paused: bool,
    next: Option<Micros>,
) -> Result<bool, Fault> {
    let done = query(
        "UPDATE schedules SET paused = $1, next_run_at = $2, \
         paused_turn = CASE WHEN $1 THEN coalesce(next_run_at, paused_turn) END WHERE id = $3",
    )
    .bind(paused)
    .bind(next.map(|m| m.0))
    .bind(id.as_bytes().as_slice())
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn rewind(
    pool: &PgPool,
    id: ScheduleId,
    planned: Micros,
    next: Option<Micros>,
) -> Result<bool, Fault> {
    let done = query(
        "UPDATE schedules SET next_run_at = $1, rewinds = rewinds + 1 \
         WHERE id = $2 AND next_run_at = $3 AND NOT paused",
    )
    .bind(next.map(|m| m.0))
    .bind(id.as_bytes().as_slice())
    .bind(planned.0)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn delete(pool: &PgPool, id: ScheduleId) -> Result<bool, Fault> {
    let done = query("DELETE FROM schedules WHERE id = $1").bind(id.as_bytes().as_slice()).execute(pool).await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn fire(pool: &PgPool, firing: Firing, ctx: &CommitContext<'_>) -> Result<Fired, Fault> {
    let mut session = Session::open(pool).await?;
    let done = fire_in(&mut session, firing, ctx).await;
    session.settle(done)
}

async fn fire_in(session: &mut Session, firing: Firing, ctx: &CommitContext<'_>) -> Result<Fired, Fault> {
    let mut tx = session.begin().await?;
    let found = locked(&mut tx, firing.id).await?;
    let mut schedule = match judge(found, &firing) {
        Ok(schedule) => schedule,
        Err(told) => return Ok(told),
    };
    let mut made = None;
    if let Act::Start { job, .. } = firing.act {
        let group = Group { submits: vec![Submit { job, claim: false }], ..Group::default() };
        let applied = commit::apply(&mut tx, &group, ctx).await?;
        made = applied.answer(group)?.submits.into_iter().next().map(Submitted::into_id);
        schedule.last_run_at = Some(ctx.now);
        schedule.last_job_id = made;
    }
    keep(&mut tx, &schedule).await?;
    tx.commit().await?;
    Ok(Fired::Done(made))
}

async fn locked(c: &mut PgConnection, id: ScheduleId) -> Result<Option<Found>, Fault> {
    let sql = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE id = $1 FOR UPDATE");
    let row = query(sql).bind(id.as_bytes().as_slice()).fetch_optional(&mut *c).await?;
    let Some(schedule) = row.as_ref().map(readers::schedule).transpose()? else { return Ok(None) };
    let open = match schedule.last_job_id {
        Some(job) => open(c, job).await?.then_some(job),
        None => None,
    };
    Ok(Some(Found { schedule, open }))
}

/// States 1 to 3 are the open ones.
async fn open(c: &mut PgConnection, job: JobId) -> Result<bool, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND state <= 3)";
    Ok(query_scalar(sql).bind(job.as_bytes().as_slice()).fetch_one(c).await?)
}

async fn keep(c: &mut PgConnection, s: &Schedule) -> Result<(), Fault> {
    let skipped = s.last_skipped.as_ref();
    query(
        "UPDATE schedules SET next_run_at = $1, waiting_turn = $2, last_run_at = $3, last_job_id = $4, \
         last_scheduled_at = $5, turns_skipped = $6, last_skipped_at = $7, last_skip_reason = $8, \
         last_skip_detail = $9 WHERE id = $10",
    )
    .bind(s.next_run_at.map(|m| m.0))
    .bind(s.waiting_turn.map(|m| m.0))
    .bind(s.last_run_at.map(|m| m.0))
    .bind(s.last_job_id.map(|id| id.as_bytes().to_vec()))
    .bind(s.last_scheduled_at.map(|m| m.0))
    .bind(i64::try_from(s.turns_skipped).unwrap_or(i64::MAX))
    .bind(skipped.map(|skip| skip.at.0))
    .bind(skipped.map(|skip| skip.reason.as_str()))
    .bind(maybe_clean(skipped.map(|skip| skip.detail.as_str())))
    .bind(s.id.as_bytes().as_slice())
    .execute(c)
    .await?;
    Ok(())
}

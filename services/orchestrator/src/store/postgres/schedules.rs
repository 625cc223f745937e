//! Schedules, and their turns: taken by comparing and setting `next_run_at`.

use super::commit;
use super::connection::Session;
use super::readers;
use super::text::clean;
use crate::model::Schedule;
use crate::store::fault::Fault;
use crate::store::rows::schedule_columns;
use crate::store::{CommitContext, Firing, Group, Submit};
use agentforge_message_id::ScheduleId;
use agentforge_proto::time::Micros;
use sqlx::postgres::PgPool;
use sqlx::query;

pub(super) async fn create(pool: &PgPool, s: &Schedule) -> Result<bool, Fault> {
    let done = query(
        "INSERT INTO schedules (id, name, cron, time_zone, template, paused, created_at, last_run_at, last_job_id, \
         next_run_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO NOTHING",
    )
    .bind(s.id.as_bytes().as_slice())
    .bind(clean(&s.name))
    .bind(clean(&s.cron))
    .bind(clean(&s.time_zone))
    .bind(clean(&s.template))
    .bind(s.paused)
    .bind(s.created_at.0)
    .bind(s.last_run_at.map(|m| m.0))
    .bind(s.last_job_id.map(|id| id.as_bytes().to_vec()))
    .bind(s.next_run_at.map(|m| m.0))
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

pub(super) async fn set_paused(
    pool: &PgPool,
    id: ScheduleId,
    paused: bool,
    next: Option<Micros>,
) -> Result<bool, Fault> {
    let done = query("UPDATE schedules SET paused = $1, next_run_at = $2 WHERE id = $3")
        .bind(paused)
        .bind(next.map(|m| m.0))
        .bind(id.as_bytes().as_slice())
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn delete(pool: &PgPool, id: ScheduleId) -> Result<bool, Fault> {
    let done = query("DELETE FROM schedules WHERE id = $1").bind(id.as_bytes().as_slice()).execute(pool).await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn fire(pool: &PgPool, firing: Firing, ctx: &CommitContext<'_>) -> Result<bool, Fault> {
    let mut session = Session::open(pool).await?;
    let done = fire_in(&mut session, firing, ctx).await;
    session.settle(done)
}

async fn fire_in(session: &mut Session, firing: Firing, ctx: &CommitContext<'_>) -> Result<bool, Fault> {
    let made = firing.job.as_ref().map(|j| (ctx.now.0, j.id.as_bytes().to_vec()));
    let (at, job_id) = made.unzip();
    let mut tx = session.begin().await?;
    let taken = query(
        "UPDATE schedules SET next_run_at = $1, last_run_at = coalesce($2, last_run_at), \
         last_job_id = coalesce($3, last_job_id) WHERE id = $4 AND next_run_at = $5 AND NOT paused",
    )
    .bind(firing.next.map(|m| m.0))
    .bind(at)
    .bind(job_id)
    .bind(firing.id.as_bytes().as_slice())
    .bind(firing.expected.0)
    .execute(&mut *tx)
    .await?;
    if taken.rows_affected() == 0 {
        return Ok(false);
    }
    if let Some(job) = firing.job {
        let group = Group { submits: vec![Submit { job, claim: false }], ..Group::default() };
        commit::apply(&mut tx, &group, ctx).await?;
    }
    tx.commit().await?;
    Ok(true)
}

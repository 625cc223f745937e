//! Schedules, and their turns: taken by comparing and setting `next_run_at`.

use super::commit::{self, Numbers};
use super::connection::Writer;
use super::readers;
use crate::model::Schedule;
use crate::store::fault::Fault;
use crate::store::rows::schedule_columns;
use crate::store::{CommitContext, Firing, Group, Submit};
use agentforge_message_id::ScheduleId;
use agentforge_proto::time::Micros;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{Connection as _, query};

pub(super) async fn create(c: &mut SqliteConnection, s: &Schedule) -> Result<bool, Fault> {
    let done = query(
        "INSERT INTO schedules (id, name, cron, time_zone, template, paused, created_at, last_run_at, last_job_id, \
         next_run_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
    )
    .bind(s.id.as_bytes().as_slice())
    .bind(&s.name)
    .bind(&s.cron)
    .bind(&s.time_zone)
    .bind(&s.template)
    .bind(s.paused)
    .bind(s.created_at.0)
    .bind(s.last_run_at.map(|m| m.0))
    .bind(s.last_job_id.map(|id| id.as_bytes().to_vec()))
    .bind(s.next_run_at.map(|m| m.0))
    .execute(c)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn one(pool: &SqlitePool, id: ScheduleId) -> Result<Option<Schedule>, Fault> {
    let sql = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE id = ?");
    let row = query(sql).bind(id.as_bytes().as_slice()).fetch_optional(pool).await?;
    row.as_ref().map(readers::schedule).transpose()
}

pub(super) async fn page(pool: &SqlitePool, after: Option<&str>, limit: u32) -> Result<Vec<Schedule>, Fault> {
    let sql = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE name > ? ORDER BY name LIMIT ?");
    let rows = query(sql).bind(after.unwrap_or_default()).bind(limit).fetch_all(pool).await?;
    rows.iter().map(readers::schedule).collect()
}

pub(super) async fn due(pool: &SqlitePool, now: Micros, limit: u32) -> Result<Vec<Schedule>, Fault> {
    let sql = concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM schedules WHERE next_run_at <= ? AND NOT paused ORDER BY next_run_at LIMIT ?"
    );
    let rows = query(sql).bind(now.0).bind(limit).fetch_all(pool).await?;
    rows.iter().map(readers::schedule).collect()
}

pub(super) async fn set_paused(
    c: &mut SqliteConnection,
    id: ScheduleId,
    paused: bool,
    next: Option<Micros>,
) -> Result<bool, Fault> {
    let done = query("UPDATE schedules SET paused = ?, next_run_at = ? WHERE id = ?")
        .bind(paused)
        .bind(next.map(|m| m.0))
        .bind(id.as_bytes().as_slice())
        .execute(c)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn delete(c: &mut SqliteConnection, id: ScheduleId) -> Result<bool, Fault> {
    let done = query("DELETE FROM schedules WHERE id = ?").bind(id.as_bytes().as_slice()).execute(c).await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn fire(w: &mut Writer, firing: Firing, ctx: &CommitContext<'_>) -> Result<bool, Fault> {
    let made = firing.job.as_ref().map(|j| (ctx.now.0, j.id.as_bytes().to_vec()));
    let (at, job_id) = made.unzip();
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let taken = query(
        "UPDATE schedules SET next_run_at = ?, last_run_at = coalesce(?, last_run_at), \
         last_job_id = coalesce(?, last_job_id) WHERE id = ? AND next_run_at = ? AND NOT paused",
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
        let numbers = Numbers { next_job: &mut w.next_job, next_outbox: &mut w.next_outbox };
        commit::apply(&mut tx, numbers, group, ctx).await?;
    }
    tx.commit().await?;
    Ok(true)
}

//! Turns of schedules: taken under the lock of the schedule's row.

use super::connection::Session;
use super::text::clean;
use super::{audit, commit};
use crate::model::Schedule;
use crate::store::fault::Fault;
use crate::store::queries::{KEEP_SCHEDULE, OPEN_JOB, SCHEDULE_BY_ID};
use crate::store::rows;
use crate::store::turn::{Found, judge, started};
use crate::store::{Act, CommitContext, Fired, Firing, Group, Submit, Submitted};
use agentforge_message_id::{JobId, ScheduleId};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, query, query_scalar};

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
        Err(answer) => return Ok(answer),
    };
    let mut made = None;
    if let Act::Start { job, .. } = firing.act {
        let group = Group { submits: vec![Submit { job, claim: false }], ..Group::default() };
        let applied = commit::apply(&mut tx, &group, ctx).await?;
        made = applied.to(group).submits.into_iter().next().map(Submitted::into_id);
        schedule.last_run_at = Some(ctx.now);
        schedule.last_job_id = made;
    }
    keep(&mut tx, &schedule).await?;
    if let Some(entry) = firing.entry {
        audit::append_unclaimed(&mut tx, vec![started(entry, made)], ctx).await?;
    }
    tx.commit().await?;
    Ok(Fired::Done(made))
}

/// The row as a turn finds it, kept from other replicas.
async fn locked(c: &mut PgConnection, id: ScheduleId) -> Result<Option<Found>, Fault> {
    let sql = AssertSqlSafe(format!("{SCHEDULE_BY_ID} FOR UPDATE"));
    let row = query(sql).bind(id.as_bytes().as_slice()).fetch_optional(&mut *c).await?;
    let Some(schedule) = row.as_ref().map(rows::schedule).transpose()? else { return Ok(None) };
    let open = match schedule.last_job_id {
        Some(job) => is_open(c, job).await?.then_some(job),
        None => None,
    };
    Ok(Some(Found { schedule, open }))
}

async fn is_open(c: &mut PgConnection, job: JobId) -> Result<bool, Fault> {
    Ok(query_scalar(OPEN_JOB).bind(job.as_bytes().as_slice()).fetch_one(c).await?)
}

async fn keep(c: &mut PgConnection, s: &Schedule) -> Result<(), Fault> {
    let skipped = s.last_skipped.as_ref();
    query(KEEP_SCHEDULE)
        .bind(s.next_run_at.map(|m| m.0))
        .bind(s.waiting_turn.map(|m| m.0))
        .bind(s.last_run_at.map(|m| m.0))
        .bind(s.last_job_id.map(|id| id.as_bytes().to_vec()))
        .bind(s.last_scheduled_at.map(|m| m.0))
        .bind(i64::try_from(s.turns_skipped).unwrap_or(i64::MAX))
        .bind(skipped.map(|skip| skip.at.0))
        .bind(skipped.map(|skip| skip.reason.as_str()))
        .bind(skipped.map(|skip| clean(&skip.detail)))
        .bind(s.id.as_bytes().as_slice())
        .execute(c)
        .await?;
    Ok(())
}

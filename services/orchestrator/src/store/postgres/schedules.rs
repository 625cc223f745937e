//! Turns of schedules: taken under the lock of the schedule's row.

use super::connection::Session;
use super::queries::schedules::{keep, locked};
use super::{audit, commit};
use crate::store::fault::Fault;
use crate::store::turn::{judge, started};
use crate::store::{Act, CommitContext, Fired, Firing, Group, Submit, Submitted};
use sqlx::postgres::PgPool;

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
        audit::append(&mut tx, vec![started(entry, made)], false, ctx).await?;
    }
    tx.commit().await?;
    Ok(Fired::Done(made))
}

//! Turns of schedules: taken by the one writer.

use super::audit;
use super::commit::{self, Numbers};
use super::connection::Writer;
use super::queries::schedules::{keep, locked};
use crate::store::fault::Fault;
use crate::store::turn::{judge, started};
use crate::store::{Act, CommitContext, Fired, Firing, Group, Submit, Submitted};
use sqlx::Connection as _;

pub(super) async fn fire(w: &mut Writer, firing: Firing, ctx: &CommitContext<'_>) -> Result<Fired, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let found = locked(&mut tx, firing.id).await?;
    let mut schedule = match judge(found, &firing) {
        Ok(schedule) => schedule,
        Err(answer) => return Ok(answer),
    };
    let mut made = None;
    if let Act::Start { job, .. } = firing.act {
        let group = Group { submits: vec![Submit { job, claim: false }], ..Group::default() };
        let numbers = Numbers { next_job: &mut w.next_job, next_outbox: &mut w.next_outbox, audit: &mut w.audit };
        made = commit::apply(&mut tx, numbers, group, ctx).await?.submits.into_iter().next().map(Submitted::into_id);
        schedule.last_run_at = Some(ctx.now);
        schedule.last_job_id = made;
    }
    keep(&mut tx, &schedule).await?;
    if let Some(entry) = firing.entry {
        let entry = started(entry, made);
        audit::append(&mut tx, &mut w.audit, &mut w.next_outbox, vec![entry], ctx).await?;
    }
    tx.commit().await?;
    Ok(Fired::Done(made))
}

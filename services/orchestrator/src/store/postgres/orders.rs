//! What operators order, each in one transaction with its entry in the audit log.

use super::connection::Session;
use super::queries::{discard_letters, operations, pauses, schedules};
use super::{audit, parked};
use crate::store::fault::Fault;
use crate::store::order::Done;
use crate::store::{CommitContext, Order};
use agentforge_audit::Entry;
use sqlx::postgres::PgPool;

pub(super) async fn carry_out(
    pool: &PgPool,
    order: &Order,
    entry: Entry,
    ctx: &CommitContext<'_>,
) -> Result<u64, Fault> {
    let mut session = Session::open(pool).await?;
    let done = carry_out_in(&mut session, order, entry, ctx).await;
    session.settle(done)
}

async fn carry_out_in(
    session: &mut Session,
    order: &Order,
    entry: Entry,
    ctx: &CommitContext<'_>,
) -> Result<u64, Fault> {
    let mut tx = session.begin().await?;
    let c = &mut *tx;
    let done = match order {
        Order::CreateSchedule(schedule) => Done::Rows(u64::from(schedules::create(c, schedule).await?)),
        Order::UpdateSchedule { schedule, read_at, retime } => {
            Done::Rows(u64::from(schedules::update(c, schedule, *read_at, *retime).await?))
        }
        Order::PauseSchedule { id, paused, next } => {
            Done::Rows(u64::from(schedules::set_paused(c, *id, *paused, *next).await?))
        }
        Order::DeleteSchedule(id) => Done::Rows(u64::from(schedules::delete(c, *id).await?)),
        Order::CreateOperation { operation, spec } => {
            Done::Rows(u64::from(operations::create(c, operation, spec).await?))
        }
        Order::CancelOperation(id) => Done::Rows(operations::cancel(c, *id).await?),
        Order::PauseQueue(pause) => Done::Rows(pauses::pause(&mut *c, pause).await?),
        Order::ResumeQueue { mission, queue } => Done::Rows(pauses::resume(&mut *c, mission, queue).await?),
        Order::Unpark(which) => Done::Named(parked::unpark(c, which.as_deref()).await?),
        Order::DiscardParked(which) => Done::Named(parked::discard(c, which.as_deref()).await?),
        Order::DiscardLetters(seqs) => Done::Named(discard_letters(c, seqs).await?),
    };
    if done.count() == 0 && !order.counts() {
        tx.rollback().await?;
        return Ok(0);
    }
    let entries = done.entries(order, entry);
    audit::append_unclaimed(&mut tx, entries, ctx).await?;
    tx.commit().await?;
    Ok(done.count())
}

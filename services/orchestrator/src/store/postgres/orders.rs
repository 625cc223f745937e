//! What operators order, each in one transaction with its entry in the audit log.

use super::connection::Session;
use super::queries::{discard_letters, operations, schedules};
use super::{audit, parked};
use crate::store::fault::Fault;
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
        Order::CreateSchedule(schedule) => u64::from(schedules::create(c, schedule).await?),
        Order::UpdateSchedule { schedule, read_at, retime } => {
            u64::from(schedules::update(c, schedule, *read_at, *retime).await?)
        }
        Order::PauseSchedule { id, paused, next } => u64::from(schedules::set_paused(c, *id, *paused, *next).await?),
        Order::DeleteSchedule(id) => u64::from(schedules::delete(c, *id).await?),
        Order::CreateOperation { operation, spec } => u64::from(operations::create(c, operation, spec).await?),
        Order::CancelOperation(id) => operations::cancel(c, *id).await?,
        Order::Unpark(which) => parked::unpark(c, which.as_deref()).await?,
        Order::DiscardParked(which) => parked::discard(c, which.as_deref()).await?,
        Order::DiscardLetters(seqs) => discard_letters(c, seqs).await?,
    };
    if done == 0 && !order.counts() {
        tx.rollback().await?;
        return Ok(0);
    }
    let entry = if order.counts() { entry.counted(done) } else { entry };
    audit::append(&mut tx, vec![entry], false, ctx).await?;
    tx.commit().await?;
    Ok(done)
}

//! What operators order, each in one transaction with its entry in the audit log.

use super::audit;
use super::connection::Writer;
use super::parked;
use super::queries::{discard_letters, operations, schedules};
use crate::store::fault::Fault;
use crate::store::{CommitContext, Order};
use agentforge_audit::Entry;
use sqlx::Connection as _;

pub(super) async fn carry_out(
    w: &mut Writer,
    order: &Order,
    entry: Entry,
    ctx: &CommitContext<'_>,
) -> Result<u64, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
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
        Order::Unpark(which) => parked::unpark(c, &mut w.known.next_outbox, which.as_deref()).await?,
        Order::DiscardParked(which) => parked::discard(c, which.as_deref()).await?,
        Order::DiscardLetters(seqs) => discard_letters(c, seqs).await?,
    };
    if done == 0 && !order.counts() {
        tx.rollback().await?;
        return Ok(0);
    }
    let entry = if order.counts() { entry.counted(done) } else { entry };
    audit::append(&mut tx, &mut w.known, vec![entry], ctx).await?;
    tx.commit().await?;
    Ok(done)
}

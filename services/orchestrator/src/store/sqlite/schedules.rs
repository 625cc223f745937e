//! Turns of schedules: taken by the one writer, in the transaction that makes their jobs.

use super::audit;
use super::commit::apply;
use super::lite::{Bind, Known, Lite, take};
use super::statements::INSERT_OUTBOX;
use crate::model::Schedule;
use crate::store::audit::event;
use crate::store::fault::Fault;
use crate::store::outbox::rows_of;
use crate::store::queries::{KEEP_SCHEDULE, OPEN_JOB, SCHEDULE_BY_ID};
use crate::store::rows;
use crate::store::turn::{Found, judge, started};
use crate::store::{Act, CommitContext, Fired, Firing, Group, Submit, Submitted};
use agentforge_message_id::ScheduleId;

/// Takes a turn, inside a transaction.
pub(super) fn fire(lite: &Lite, known: &mut Known, firing: Firing, ctx: &CommitContext<'_>) -> Result<Fired, Fault> {
    let found = found(lite, firing.id)?;
    let mut schedule = match judge(found, &firing) {
        Ok(schedule) => schedule,
        Err(answer) => return Ok(answer),
    };
    let mut made = None;
    if let Act::Start { job, .. } = firing.act {
        let group = Group { submits: vec![Submit { job, claim: false }], ..Group::default() };
        made = apply(lite, known, group, ctx)?.submits.into_iter().next().map(Submitted::into_id);
        schedule.last_run_at = Some(ctx.now);
        schedule.last_job_id = made;
    }
    keep(lite, &schedule)?;
    if let Some(entry) = firing.entry {
        let chained = audit::chain(&mut known.audit, vec![started(entry, made)]);
        audit::write(lite, &chained)?;
        let events = chained.iter().map(|entry| event(entry, ctx.mission.as_str())).collect();
        let rows = rows_of(events, || take(&mut known.next_outbox));
        lite.each(&INSERT_OUTBOX, &rows, |a, row| audit::bind_row(a, row, 0, None, ctx.now))?;
    }
    Ok(Fired::Done(made))
}

fn found(lite: &Lite, id: ScheduleId) -> Result<Option<Found>, Fault> {
    let schedule = lite
        .find(SCHEDULE_BY_ID, [&id], |a, id| _ = a.bytes(id.as_bytes().as_slice()), |row| rows::schedule(row))?
        .pop();
    let Some(schedule) = schedule else { return Ok(None) };
    let is_open = lite.find(OPEN_JOB, &schedule.last_job_id, |a, id| _ = a.id(id), |row| Ok(row.get::<_, bool>(0)?))?;
    let open = schedule.last_job_id.filter(|_| is_open == [true]);
    Ok(Some(Found { schedule, open }))
}

fn keep(lite: &Lite, s: &Schedule) -> Result<(), Fault> {
    lite.each(KEEP_SCHEDULE, [s], |a, s| {
        let skipped = s.last_skipped.as_ref();
        let detail = skipped.map(|skip| skip.detail.replace('\0', "\u{fffd}"));
        a.number(s.next_run_at.map(|m| m.0)).number(s.waiting_turn.map(|m| m.0)).number(s.last_run_at.map(|m| m.0));
        a.bytes(s.last_job_id.as_ref().map(|id| id.as_bytes().as_slice())).number(s.last_scheduled_at.map(|m| m.0));
        a.number(i64::try_from(s.turns_skipped).unwrap_or(i64::MAX)).number(skipped.map(|skip| skip.at.0));
        a.text(skipped.map(|skip| skip.reason.as_str())).text(detail.as_deref()).bytes(s.id.as_bytes().as_slice());
    })
}

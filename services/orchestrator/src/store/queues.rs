//! What the store knows of each queue, from rows of either database: its counts, its first job, and which are due.

use super::fault::Fault;
use super::{Pick, QueueCounts, QueueEnded, Waiting, rows};
use agentforge_message_id::{Mission, Queue};
use agentforge_proto::time::Micros;

/// Mission, queue, accepted, delayed, queued, running, and since when the oldest waits.
pub(super) type CountsRow = (String, String, i64, i64, i64, i64, Option<i64>);

pub(super) fn counts(row: CountsRow) -> Result<QueueCounts, Fault> {
    let (mission, queue, accepted, delayed, queued, running, oldest) = row;
    Ok(QueueCounts {
        mission: rows::name("job", Mission::new(mission))?,
        queue: rows::name("job", Queue::new(queue))?,
        accepted: accepted.unsigned_abs(),
        delayed: delayed.unsigned_abs(),
        queued: queued.unsigned_abs(),
        running: running.unsigned_abs(),
        oldest: oldest.map(Micros),
    })
}

/// How many jobs of a queue ended, and since when.
pub(super) fn ended((mission, queue, jobs, since): (String, String, i64, i64)) -> Result<QueueEnded, Fault> {
    Ok(QueueEnded {
        mission: rows::name("job", Mission::new(mission))?,
        queue: rows::name("job", Queue::new(queue))?,
        jobs: jobs.unsigned_abs(),
        since: Micros(since),
    })
}

/// A queue with accepted jobs, and when the first may be claimed.
pub(super) type Line = (String, Option<i64>);

/// When the first job of the queues that are picked may be claimed.
pub(super) fn first_of(lines: Vec<Line>, pick: &Pick) -> Option<Micros> {
    let mine = lines.into_iter().filter(|(queue, _)| Queue::new(queue).is_ok_and(|q| pick.takes(&q)));
    mine.filter_map(|(_, at)| at).min().map(Micros)
}

/// The queues that are picked and have a job that is due, in an order that differs each time: with many of them one
/// claim may not reach the last.
pub(super) fn due_lines(lines: Vec<Line>, now: Micros, pick: &Pick) -> Vec<Queue> {
    let due = lines.into_iter().filter(|(_, at)| at.is_some_and(|at| at <= now.0));
    let mut queues: Vec<Queue> = due.filter_map(|(q, _)| Queue::new(q).ok()).filter(|q| pick.takes(q)).collect();
    if queues.len() > 1 {
        let first = rand::random_range(0..queues.len());
        queues.rotate_left(first);
    }
    queues
}

/// Only the queues.
pub(super) fn queues_of(lines: Vec<Line>) -> Vec<Queue> {
    lines.into_iter().filter_map(|(queue, _)| Queue::new(queue).ok()).collect()
}

/// Counts by queue: due, claimed, and claimable later (claimed ones included).
pub(super) fn waiting(counts: Vec<(String, i64, i64, i64)>) -> Result<Waiting, Fault> {
    let mut waiting = Waiting::default();
    for (queue, due, claimed, later) in counts {
        waiting.later += later.saturating_sub(claimed).unsigned_abs();
        waiting.due.push((rows::name("job", Queue::new(queue))?, (due + claimed).unsigned_abs()));
    }
    Ok(waiting)
}

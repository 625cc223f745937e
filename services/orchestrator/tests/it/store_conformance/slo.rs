//! Minutes of the objectives: merged from several processes, and counted from the jobs themselves.

use super::world::*;
use agentforge_orchestrator::model::{NewJob, State};
use agentforge_orchestrator::slo::{Bucket, Finished, Unit};
use agentforge_proto::bus::ErrorClass;
use agentforge_proto::time::Micros;

const MINUTE: i64 = 60_000_000;

fn bucket(slo: &str, minute: i64, seen: i64, good: i64) -> Bucket {
    Bucket { slo: slo.into(), minute, seen, good }
}

pub async fn a_minute_that_two_replicas_observed_counts_once(w: &World) {
    let other = w.other().await;
    w.store.merge_slo(Unit::Seconds, &[bucket("a", 7, 0b0111, 0b0001), bucket("b", 7, 1 << 59, 0)]).await.unwrap();
    let seen_by_other = [bucket("a", 7, 0b1110, 0b0110), bucket("a", 8, 1, 1)];
    for _ in 0..2 {
        other.merge_slo(Unit::Seconds, &seen_by_other).await.unwrap();
    }
    w.store.merge_slo(Unit::Seconds, &[]).await.unwrap();
    let all = [bucket("a", 7, 0b1111, 0b0111), bucket("b", 7, 1 << 59, 0), bucket("a", 8, 1, 1)];
    assert_eq!(w.store.slo_buckets(0).await.unwrap(), all);
    assert_eq!(other.slo_buckets(8).await.unwrap(), all[2..]);
    assert_eq!(w.store.last_slo_minute("a").await.unwrap(), Some(8));
    assert_eq!(w.store.last_slo_minute("b").await.unwrap(), Some(7));
    assert_eq!(w.store.last_slo_minute("c").await.unwrap(), None);
}

pub async fn counts_of_a_minute_only_rise(w: &World) {
    for (total, good) in [(5, 4), (9, 4), (7, 7), (9, 4)] {
        w.store.merge_slo(Unit::Events, &[bucket("jobs", 3, total, good)]).await.unwrap();
    }
    assert_eq!(w.store.slo_buckets(0).await.unwrap(), [bucket("jobs", 3, 9, 7)]);
}

pub async fn many_minutes_are_kept_and_old_ones_forgotten(w: &World) {
    let rows: Vec<Bucket> = (0..1_500).map(|minute| bucket("a", minute, i64::MAX >> 3, 1)).collect();
    w.store.merge_slo(Unit::Seconds, &rows).await.unwrap();
    assert_eq!(w.store.slo_buckets(0).await.unwrap(), rows);
    assert_eq!(w.store.forget_slo(1_490).await.unwrap(), 1_490);
    assert_eq!(w.store.slo_buckets(0).await.unwrap(), rows[1_490..]);
}

pub async fn finished_jobs_are_counted_by_minute_and_outcome(w: &World) {
    // (accepted, run_at, finished, how): minutes of a made-up day.
    let cases = [
        (0, None, 9 * MINUTE, State::Succeeded),
        (0, None, 10 * MINUTE, State::Succeeded),
        (0, None, 10 * MINUTE + 1, State::Succeeded),
        (0, None, 20 * MINUTE + 1, State::Succeeded),
        // Not late: it was not due before.
        (0, Some(15 * MINUTE), 20 * MINUTE + 2, State::Succeeded),
        (19 * MINUTE, None, 20 * MINUTE + 3, State::Failed),
        (19 * MINUTE, None, 20 * MINUTE + 4, State::Cancelled),
    ];
    for (accepted, run_at, ends, how) in cases {
        let new = NewJob {
            spec: JobSpec { run_at: run_at.map(Micros), ..JobSpec::clone(&job(accepted).spec) }.into(),
            ..job(accepted)
        };
        let id = w.submit(accepted, new).await.job.id;
        let change = match how {
            State::Succeeded => finished(id, 1, success("1")),
            State::Cancelled => cancel(ends),
            _ => finished(id, 1, failure(ErrorClass::ToolNotFound)),
        };
        w.change(ends, id, change).await.unwrap();
    }
    let counted = |minute, total, fast, capped| Finished { minute, total, fast, capped };
    let found = w.store.finished_by_minute(0, 60).await.unwrap();
    assert_eq!(found, [counted(9, 1, 1, 1), counted(10, 2, 1, 2), counted(20, 3, 1, 1)]);
    assert_eq!(w.store.finished_by_minute(10, 20).await.unwrap(), [counted(10, 2, 1, 2)]);
}

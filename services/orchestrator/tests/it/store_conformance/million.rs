//! How long a page takes among very many jobs: printed, and bounded where the counts are full (AGENTFORGE_SOAK=1).

use super::world::*;
use agentforge_message_id::{Mission, Queue, ToolName};
use agentforge_orchestrator::model::State;
use agentforge_orchestrator::store::{JobFilter, Times};
use agentforge_proto::time::Micros;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bound on the slowest of a hundred pages, of a single filter.
const SLOW: Duration = Duration::from_millis(100);
const START: i64 = 1_700_000_000_000_000;

fn is_soak() -> bool {
    std::env::var_os("AGENTFORGE_SOAK").is_some_and(|v| v == "1")
}

/// Jobs a millisecond apart: nearly all succeeded, the newest queued and running, a few waiting since long ago, 3 in 1,000
/// ended badly; half of them with two labels.
async fn jobs(w: &World, n: i64) {
    let (id, numbers, reuse) = if w.store.is_shared() {
        ("decode(md5(n::text), 'hex')", format!("generate_series(1, {n}) AS n"), "false")
    } else {
        let c = format!(
            "(WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {n}) SELECT n FROM c) AS c"
        );
        ("randomblob(16)", c, "0")
    };
    w.sql(&format!(
        "INSERT INTO jobs (id, state, attempt, attempt_limit, max_attempts, version, republished, created_at, available_at, \
           claimable_at, expires_at, checked_at, queued_at, finished_at, error_class, error_message, mission, queue, tool, labels, submitted_by) \
         SELECT {id}, s, 1, 3, 3, 1, 0, {START} + n * 1000, {START} + n * 1000, \
           CASE WHEN s = 1 THEN 1900000000000000 END, CASE WHEN s <= 3 THEN 1900000000000000 END, \
           CASE WHEN s IN (2, 3) THEN {START} + n * 1000 END, {START} + n * 1000, \
           CASE WHEN s >= 4 THEN {START} + n * 1000 + 5000 END, CASE WHEN s >= 5 THEN 'execution' END, \
           CASE WHEN s >= 5 THEN 'the tool ended with exit code ' || (n % 200) || ': connection to host' || n || ' timed out' END, 'dev', \
           CASE WHEN n % 100 = 0 THEN 'mail' WHEN n <= {n} / 1000 THEN 'old' ELSE 'default' END, \
           CASE WHEN n % 7 = 0 THEN 'sleep' WHEN n % 20000 = 3 THEN 'rare' ELSE 'echo' END, \
           CASE WHEN n % 2 = 0 THEN '{{\"customer\":\"c' || (n % 5000) || '\",\"team\":\"' || (n % 4) || '\"}}' END, \
           CASE WHEN n % 30000 = 5 THEN 'ops' WHEN n % 3 = 0 THEN 'ci' ELSE 'anyone' END \
         FROM (SELECT n, CASE WHEN n % 500 = 7 THEN 5 WHEN n % 5000 = 9 THEN 6 WHEN n % 3000 = 11 THEN 7 \
                 WHEN n % 4000 = 13 THEN 8 WHEN n > {n} - {n} / 100 AND n % 3 = 0 THEN 2 \
                 WHEN n > {n} - {n} / 60 AND n % 50 = 1 THEN 3 WHEN n % 10000 = 17 THEN 1 ELSE 4 END AS s \
               FROM {numbers}) AS many"
    ))
    .await;
    w.sql(&format!(
        "INSERT INTO job_payloads (seq, timeout_us, reuse, args) SELECT seq, 1, {reuse}, '{{\"a\":1}}' FROM jobs"
    ))
    .await;
    w.sql("INSERT INTO job_results (seq, output) SELECT seq, '{\"a\":1}' FROM jobs WHERE state = 4").await;
    // Notes the labels.
    w.store.prepare().await.unwrap();
    // As autovacuum leaves it, and the checkpoints of the log.
    w.sql(if w.store.is_shared() { "VACUUM ANALYZE" } else { "PRAGMA wal_checkpoint(TRUNCATE)" }).await;
}

fn filters(n: i64) -> Vec<(String, JobFilter)> {
    let page = JobFilter { limit: 100, ..JobFilter::default() };
    let mut filters = vec![("none".to_owned(), page.clone())];
    for state in State::ALL {
        filters.push((format!("state={}", state.as_str()), JobFilter { states: vec![state], ..page.clone() }));
    }
    let mut add = |name: &str, filter: JobFilter| filters.push((name.to_owned(), filter));
    let queue = |q: &str| Some(Queue::new(q).unwrap());
    let tool = |t: &str| Some(ToolName::new(t).unwrap());
    let label = |k: &str, v: &str| vec![(k.to_owned(), v.to_owned())];
    let part = |hundredths: i64| Some(Micros(START + n * 10 * hundredths));
    add("mission=dev", JobFilter { mission: Some(Mission::new("dev").unwrap()), ..page.clone() });
    add("mission=none", JobFilter { mission: Some(Mission::new("none").unwrap()), ..page.clone() });
    add("queue=mail", JobFilter { queue: queue("mail"), ..page.clone() });
    add("queue=old", JobFilter { queue: queue("old"), ..page.clone() });
    add("tool=rare", JobFilter { tool: tool("rare"), ..page.clone() });
    add("tool=nothing", JobFilter { tool: tool("nothing"), ..page.clone() });
    add("submitted_by=ops", JobFilter { submitted_by: Some("ops".into()), ..page.clone() });
    add("label=customer=c4998", JobFilter { labels: label("customer", "c4998"), ..page.clone() });
    add("label=team=2", JobFilter { labels: label("team", "2"), ..page.clone() });
    add("label=none=none", JobFilter { labels: label("none", "none"), ..page.clone() });
    let error = |text: &str| JobFilter { error: Some(text.to_owned()), ..page.clone() };
    add("error=timed out", error("timed out"));
    add("error=host507, among the oldest", error("HOST507 "));
    add("error=none", error("no such words"));
    let times = |times| JobFilter { times, ..page.clone() };
    add("created_after", times(Times { created_after: part(99), ..Times::default() }));
    add("created_before, the middle", times(Times { created_before: part(50), ..Times::default() }));
    add("created_before, the first hundredth", times(Times { created_before: part(1), ..Times::default() }));
    add("finished_after", times(Times { finished_after: part(99), ..Times::default() }));
    add("finished_before, the middle", times(Times { finished_before: part(50), ..Times::default() }));
    add("finished_before, the first hundredth", times(Times { finished_before: part(1), ..Times::default() }));
    let failed = JobFilter { states: vec![State::Failed, State::Dead], ..page.clone() };
    add("two filters: state=failed,dead queue=mail", JobFilter { queue: queue("mail"), ..failed.clone() });
    add("two filters: state=failed,dead tool=sleep", JobFilter { tool: tool("sleep"), ..failed.clone() });
    add("two filters: state=failed,dead label=team=2", JobFilter { labels: label("team", "2"), ..failed.clone() });
    let old = Times { created_before: part(50), ..Times::default() };
    add("two filters: state=failed,dead created_before, the middle", JobFilter { times: old, ..failed });
    add(
        "two filters: state=succeeded queue=old",
        JobFilter { states: vec![State::Succeeded], queue: queue("old"), ..page },
    );
    filters
}

fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[(times.len() * 99).div_ceil(100) - 1])
}

pub async fn pages_among_very_many_jobs_are_found_soon(w: &World) {
    let (n, turns) = if is_soak() { (1_000_000, 100) } else { (20_000, 3) };
    jobs(w, n).await;
    eprintln!("{}, {n} jobs: p50 and p99 of {turns} pages, milliseconds", w.store.kind());
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let note = |name: &str, rows: usize, times: Vec<Duration>| {
        let (p50, p99) = spread(times);
        eprintln!("| {name} | {rows} | {:.1} | {:.1} |", ms(p50), ms(p99));
        p99
    };
    let mut slow = Vec::new();
    for (name, filter) in filters(n) {
        let (mut times, mut rows) = (Vec::new(), 0);
        for _ in 0..turns {
            let begun = Instant::now();
            let page = w.store.jobs(&filter).await.unwrap();
            times.push(begun.elapsed());
            rows = page.items.len();
            assert!(rows > 0 || page.next.is_none(), "{name}");
        }
        let p99 = note(&name, rows, times);
        let is_slow = p99 > SLOW && !name.starts_with("two filters");
        slow.extend(is_slow.then(|| format!("{name}: {:.1} ms", ms(p99))));
    }
    // Callers get them from memory.
    let mut times = Vec::new();
    for _ in 0..turns {
        let begun = Instant::now();
        let counts = w.store.state_counts().await.unwrap();
        times.push(begun.elapsed());
        assert_eq!(counts.iter().map(|(_, jobs)| jobs).sum::<u64>(), n as u64);
    }
    note("counts by state, from the database", 8, times);
    assert!(!is_soak() || slow.is_empty(), "above {} ms: {slow:?}", SLOW.as_millis());
}

/// What the indexes cost a commit: groups of 200 jobs from submission to result, in turns on a store with them and on one
/// without.
pub async fn what_listing_costs_a_commit_is_measured(with: &World) {
    let (turns, groups) = if is_soak() { (10, 50) } else { (1, 1) };
    let without = with.another("without").await;
    for drop in [
        "DROP INDEX jobs_listed",
        "DROP INDEX jobs_kinds",
        "DROP INDEX jobs_created_blocks",
        "DROP INDEX jobs_finished_blocks",
    ] {
        without.sql(drop).await;
    }
    if with.store.is_shared() {
        without.sql("DROP TRIGGER jobs_labelled ON jobs").await;
    } else {
        without.sql("DROP INDEX jobs_labelled").await;
    }
    for labelled in [false, true] {
        let (mut quotients, mut each) = (Vec::new(), [Vec::new(), Vec::new()]);
        for turn in 0..turns {
            let mut took = [Duration::ZERO; 2];
            for side in [turn % 2, 1 - turn % 2] {
                let w = [with, &without][side];
                took[side] = through(w, groups, labelled).await;
                each[side].push(took[side]);
            }
            quotients.push(took[0].as_secs_f64() / took[1].as_secs_f64());
        }
        quotients.sort_unstable_by(f64::total_cmp);
        let [with_them, without_them] = each.map(|times| spread(times).0.as_secs_f64());
        eprintln!(
            "{}, labels {labelled}: {} jobs in {with_them:.2} s with and {without_them:.2} s without them; \
             quotients {quotients:.3?}",
            with.store.kind(),
            groups * 200
        );
    }
}

async fn through(w: &World, groups: usize, labelled: bool) -> Duration {
    use agentforge_orchestrator::store::{Group, Submit};
    let begun = Instant::now();
    for _ in 0..groups {
        let new = || {
            let mut job = job(10);
            if labelled {
                let spec = Arc::make_mut(&mut job.spec);
                spec.labels =
                    [("team".to_owned(), "blue".to_owned()), ("customer".to_owned(), spec.id.to_string())].into();
            }
            Submit { job, claim: true }
        };
        let done = w.commit(10, Group { submits: (0..200).map(|_| new()).collect(), ..Group::default() }).await;
        let ids: Vec<_> = done.submits.into_iter().map(|s| created(s).job.id).collect();
        let changes = ids.iter().map(|id| (*id, queued(1, 20))).collect();
        w.commit(
            20,
            Group { changes, outbox_sent: done.outbox.iter().map(|row| row.seq).collect(), ..Group::default() },
        )
        .await;
        let changes = ids.iter().map(|id| (*id, finished(*id, 1, success("1")))).collect();
        w.commit(30, Group { changes, ..Group::default() }).await;
    }
    begun.elapsed()
}

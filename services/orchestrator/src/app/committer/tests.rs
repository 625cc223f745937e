//! The committer over a real SQLite file.

use super::*;
use crate::admission::{JobRequest, Limits, SubmitInput, admit, args_max_bytes};
use crate::app::{Backlog, Handed, handoffs};
use crate::model::State;
use crate::store::sqlite::SqliteStore;
use agentforge_message_id::{AgentId, Attempt};
use tokio_util::sync::CancellationToken;

const CLAIM_FOR: Duration = Duration::from_secs(30);

struct World {
    committer: Committer,
    store: Arc<dyn Store>,
    owner: Owner,
    outbox: Handed<OutboxRow>,
    jobs: Arc<Backlog>,
    watchers: JobWatchers,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.path().join("test.db")).unwrap());
    store.prepare().await.unwrap();
    let owner = Owner("me".to_owned());
    let config = CommitterConfig {
        backoff: Backoff::default(),
        owner: owner.clone(),
        claim_for: CLAIM_FOR,
        events: EventMask::ALL,
        mission: Mission::new("dev").unwrap(),
    };
    let ((to_jobs, _), (to_outbox, outbox)) = (handoffs(), handoffs());
    let jobs = Arc::clone(to_jobs.backlog());
    let (orphans, _) = crate::deletions::deletions();
    let watchers = JobWatchers::default();
    outbox.backlog().set_open(true);
    outbox.backlog().note_scanned(outbox.backlog().generation());
    let outlets = Outlets {
        watchers: watchers.clone(),
        gauge: OutboxGauge::new(u64::MAX, u64::MAX),
        jobs: to_jobs,
        outbox: to_outbox,
        orphans,
    };
    let (committer, commits) = Committer::new(store.clone(), config, outlets);
    tokio::spawn(commits.run(CancellationToken::new()));
    World { committer, store, owner, outbox, jobs, watchers, _dir: dir }
}

fn job() -> NewJob {
    let limits = Limits {
        args_max_bytes: args_max_bytes(1024 * 1024),
        max_attempts_max: 100,
        max_attempts_default: 3,
        tool_retries: Default::default(),
        timeout_default: Duration::from_secs(300),
        timeout_max: Duration::from_secs(3600),
        deadline_default: None,
        run_at_max: Duration::from_secs(86_400),
        mission_default: Mission::new("dev").unwrap(),
    };
    admit(
        SubmitInput { request: JobRequest { tool: "echo".into(), ..JobRequest::default() }, ..SubmitInput::default() },
        &limits,
        Micros::now(),
        None,
    )
    .unwrap()
}

/// A mark that is lost is a publish made again when its claim ends, and past the duplicate window a second
/// copy: under load that once doubled the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mark_is_lost_however_many_come_at_once() {
    // More than wait in the queue and in one commit together.
    const JOBS: usize = LAZY_QUEUE + MARKS_MAX + 1_000;
    let mut w = world().await;
    let by = Caller::itself("SubmitJob");
    let submits = (0..JOBS).map(|_| w.committer.submit(job(), &by));
    for stored in futures_util::future::join_all(submits).await {
        stored.unwrap();
    }
    let mut rows = Vec::new();
    while let Some(some) = w.outbox.try_next() {
        rows.extend(some);
    }
    // What is handed over in memory is bounded; the rest is in the store.
    let held: usize = rows.iter().map(|row| row.messages.len()).sum();
    assert!(held < Backlog::HELD_MAX + 2 * GROUP_MAX, "{held} messages in memory");
    let now = Micros::now();
    loop {
        let more = w.store.claim_outbox(&w.owner, now, now.plus(CLAIM_FOR), 1_024).await.unwrap();
        if more.is_empty() {
            break;
        }
        rows.extend(more);
    }
    rows.sort_by_key(|row| row.seq);
    rows.dedup_by_key(|row| row.seq);
    let accepted = rows.iter().flat_map(|row| &row.messages).filter(|m| m.subject.contains(".job.")).count();
    assert_eq!(accepted, JOBS, "one event for each job accepted; the rest is of the audit log");
    let marks = rows.iter().map(|row| w.committer.mark(Lazy::OutboxSent(row.seq)));
    futures_util::future::join_all(marks).await;

    let after_all_claims = Micros::now().plus(CLAIM_FOR * 2);
    agentforge_harness::eventually(Duration::from_secs(20), "the outbox is empty", async || {
        let left = w.store.claim_outbox(&w.owner, after_all_claims, after_all_claims, 1_024).await.unwrap();
        if left.is_empty() { Ok(()) } else { Err(format!("{} rows and more", left.len())) }
    })
    .await;
}

/// The relay makes room for a burst only while workers have enough to do, and no longer than the burst.
#[tokio::test]
async fn a_burst_goes_first_while_workers_have_enough() {
    let w = world().await;
    let by = Caller::itself("SubmitJob");
    let burst = async || {
        let mut yielded = false;
        let submits = (0..4 * GROUP_MAX).map(|_| w.committer.submit(job(), &by));
        let mut all = std::pin::pin!(futures_util::future::join_all(submits));
        loop {
            tokio::select! {
                stored = &mut all => break assert!(stored.iter().all(Result::is_ok)),
                () = tokio::task::yield_now() => yielded |= w.jobs.is_yielding(),
            }
        }
        assert!(!w.jobs.is_yielding(), "nothing comes any more");
        yielded
    };
    assert!(!burst().await, "workers have nothing");
    w.jobs.set_slots(100);
    (0..2_000).for_each(|_| w.jobs.note_published());
    assert!(!burst().await, "a tenth of a second of work is not enough");
    (0..148).for_each(|_| w.jobs.note_published());
    assert!(burst().await, "they have enough");
    w.jobs.note_done();
    assert!(!burst().await, "one of them was the last that was enough");
}

/// A waiting caller learns from the commit itself what it stored.
#[tokio::test]
async fn a_commit_tells_the_job_and_its_result_to_those_who_listen() {
    use agentforge_proto::bus::{Finished, Outcome as Reported, Success};
    let w = world().await;
    let (heard, unheard) = (job(), job());
    let mut subscription = w.watchers.listen(heard.id);
    let finished = |id| {
        let finished = Finished {
            job: id,
            attempt: Attempt::FIRST,
            delivery: 1,
            worker: AgentId::new("w").unwrap(),
            started_at: Micros::now(),
            finished_at: Micros::now(),
            outcome: Reported::Succeeded(Success { output: None, output_ref: None, idempotent_replay: None }),
            traceparent: None,
            request_id: None,
        };
        (id, Change::Finished(Box::new(finished)))
    };
    let changes = vec![finished(heard.id), finished(unheard.id)];
    let by = Caller::itself("SubmitJob");
    w.committer.submit(heard, &by).await.unwrap();
    w.committer.submit(unheard, &by).await.unwrap();
    for changed in w.committer.change(changes, vec![]).await.unwrap() {
        changed.unwrap();
    }
    let update = subscription.heard().await.expect("this process made the change");
    assert_eq!((update.job.id, update.job.state), (subscription.id(), State::Succeeded));
    assert!(update.result.is_some());
    assert_eq!(w.watchers.len(), 1);
}

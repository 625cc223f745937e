//! Timers out of every state, and what is left of old jobs.

use super::world::*;
use agentforge_orchestrator::model::{NewJob, State};
use agentforge_orchestrator::store::{DeadLetterFilter, Group};
use agentforge_orchestrator::transition::{Change, Ignored};
use agentforge_proto::bus::Rejected;
use agentforge_proto::time::Micros;

pub async fn deadlines_end_open_jobs_only(w: &World) {
    let with = |deadline| NewJob { deadline, ..job(10) };
    let first = w.submit(10, with(Some(Micros(100)))).await.job.id;
    let second = w.submit(10, with(Some(Micros(90)))).await.job.id;
    let third = w.submit(10, with(Some(Micros(80)))).await.job.id;
    w.submit(10, with(None)).await;
    w.change(20, first, started(first, 1, 20)).await.unwrap();
    w.change(20, third, finished(third, 1, success("1"))).await.unwrap();
    assert!(w.store.past_deadline(Micros(89), Micros(89), 9).await.unwrap().is_empty());
    assert_eq!(w.store.past_deadline(Micros(100), Micros(100), 9).await.unwrap(), [second, first]);
    assert_eq!(w.store.past_deadline(Micros(100), Micros(100), 1).await.unwrap(), [second]);
    w.change(100, first, Change::Expire { at: Micros(100) }).await.unwrap();
    assert_eq!(w.change(95, second, Change::Expire { at: Micros(89) }).await.unwrap_err(), Ignored::Passed);
    assert_eq!(w.store.past_deadline(Micros(100), Micros(100), 9).await.unwrap(), [second]);
    assert_eq!(w.job(first).await.state, State::Expired);
}

pub async fn a_published_job_expires_only_up_to_where_reports_are_read(w: &World) {
    let with = |deadline| NewJob { deadline: Some(Micros(deadline)), ..job(10) };
    let waiting = w.submit(10, with(100)).await.job.id;
    let published = w.submit(10, with(90)).await.job.id;
    w.change(20, published, queued(1, 20)).await.unwrap();
    let due = async |read_to| w.store.past_deadline(Micros(100), Micros(read_to), 9).await.unwrap();
    assert_eq!(due(89).await, [waiting], "what was never published can have no report");
    assert_eq!(due(90).await, [published, waiting]);
}

pub async fn stale_jobs_are_found_until_they_are_looked_at(w: &World) {
    w.job_in(10, State::Accepted).await;
    w.job_in(10, State::Succeeded).await;
    let running = w.job_in(30, State::Running).await;
    let queued_one = w.job_in(20, State::Queued).await;
    assert!(w.store.stale(Micros(20), 9).await.unwrap().is_empty());
    let stale = w.store.stale(Micros(50), 9).await.unwrap();
    let got: Vec<_> = stale.iter().map(|s| (s.id, s.state, s.attempt, s.checked_at.0, s.stream_seq)).collect();
    let expected =
        [(queued_one, State::Queued, attempt(1), 20, Some(77)), (running, State::Running, attempt(1), 30, Some(77))];
    assert_eq!(got, expected);
    w.store.touch(&[queued_one, running], Micros(60)).await.unwrap();
    assert!(w.store.stale(Micros(60), 9).await.unwrap().is_empty());
    assert_eq!(w.store.stale(Micros(61), 1).await.unwrap().len(), 1);

    // Its message was gone: it is published again, and then checked again.
    w.change(70, queued_one, Change::Republish { attempt: attempt(1), at: Micros(70) }).await.unwrap();
    assert_eq!(w.store.stale(Micros(100), 9).await.unwrap().len(), 1);
    let due = w.store.claim_due(&w.owner, Micros(70), Micros(99), 9).await.unwrap();
    let republished = due.iter().find(|o| o.id == queued_one).unwrap();
    assert_eq!((republished.republished, republished.attempt), (1, attempt(1)));
    w.change(80, queued_one, queued(1, 80)).await.unwrap();
    assert_eq!(w.store.stale(Micros(100), 9).await.unwrap()[1].checked_at, Micros(80));
    w.store.touch(&[], Micros(1)).await.unwrap();
}

pub async fn pruning_leaves_nothing_of_a_job(w: &World) {
    let old =
        [w.job_in(10, State::Dead).await, w.job_in(20, State::Succeeded).await, w.job_in(30, State::Failed).await];
    let young = w.job_in(100, State::Failed).await;
    let open = w.job_in(10, State::Running).await;
    let rejected = Rejected {
        worker: worker(),
        subject: "swarm.jobs.dev.default".into(),
        stream: "swarm_jobs".into(),
        sequence: 1,
        stored_at_ns: 7,
        reason: "no".into(),
        payload_bytes: 0,
        payload_hex: String::new(),
        at: Micros(15),
        invalid_signature: false,
    };
    w.commit(15, Group { rejects: vec![rejected], ..Group::default() }).await;

    assert_eq!(w.store.prune(Micros(100), 2).await.unwrap(), 2);
    assert_eq!(w.store.prune(Micros(100), 2).await.unwrap(), 1);
    assert_eq!(w.store.prune(Micros(100), 2).await.unwrap(), 0);
    for id in old {
        assert!(w.store.job(id).await.unwrap().is_none());
        assert!(w.store.attempts(id).await.unwrap().is_empty());
        // Nor of what the store remembers of it.
        assert_eq!(w.change(110, id, Change::Redrive { at: Micros(110) }).await.unwrap_err(), Ignored::Unknown);
    }
    assert_eq!(w.job(young).await.state, State::Failed);
    assert_eq!(w.job(open).await.state, State::Running);
    let tables = ["jobs", "job_payloads", "job_attempts", "job_results", "dead_letters"];
    let mut rows = Vec::new();
    for table in tables {
        rows.push(w.rows(table).await);
    }
    assert_eq!(rows, [2, 2, 1, 0, 1]);
    let letters = DeadLetterFilter { limit: 9, ..Default::default() };
    assert_eq!(w.store.dead_letters(&letters).await.unwrap().items[0].job, Some(young));
}

pub async fn a_store_survives_its_process(w: &World) {
    let running = w.job_in(10, State::Running).await;
    let waiting = w.submit(20, named(20, Some("k"), 1)).await.job;
    w.store.close().await;
    let store = w.reopened().await;
    let w = World { store, url: w.url.clone(), ..World::sqlite().await };
    assert_eq!(w.job(running).await.state, State::Running);
    assert_eq!(w.claim(30, 9).await, [waiting.id]);
    let again = NewJob {
        spec: JobSpec { id: agentforge_message_id::JobId::generate(), ..JobSpec::clone(&waiting.spec) }.into(),
        ..waiting
    };
    let again = w.store.commit(
        Group {
            submits: vec![agentforge_orchestrator::store::Submit { job: again, claim: false }],
            ..Group::default()
        },
        w.ctx(40),
    );
    assert!(matches!(again.await.unwrap().submits[0], agentforge_orchestrator::store::Submitted::Existing(_)));
    assert_eq!(w.outbox().await.len(), 4);
}

pub async fn row_numbers_are_never_used_again(w: &World) {
    let id = w.job_in(10, State::Succeeded).await;
    let (seq, sent) = (w.job(id).await.seq, w.rows_of_outbox().await);
    let outbox_sent = sent.iter().map(|r| r.seq).collect();
    w.commit(20, Group { outbox_sent, ..Group::default() }).await;
    assert_eq!(w.store.prune(Micros(100), 9).await.unwrap(), 1);
    w.store.close().await;
    let w = World { store: w.reopened().await, url: w.url.clone(), ..World::sqlite().await };
    let next = w.submit(200, job(200)).await;
    assert!(next.seq > seq);
    assert!(w.rows_of_outbox().await[0].seq > sent.last().unwrap().seq);
}

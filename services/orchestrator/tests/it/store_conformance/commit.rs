//! Submissions, changes and what they leave in the outbox.

use super::world::*;
use agentforge_message_id::{JobId, Mission, Queue, ScheduleId, ToolName};
use agentforge_orchestrator::model::{NewJob, RetryPolicy, State};
use agentforge_orchestrator::store::{EventMask, Group, Submit, Submitted};
use agentforge_orchestrator::transition::{Change, Ignored};
use agentforge_proto::bus::{DeadLetterMessage, ErrorClass, JobEvent, Outcome, OutputRef, Rejected, Success};
use agentforge_proto::time::Micros;
use std::time::Duration;

pub async fn a_submission_can_be_repeated_but_not_changed(w: &World) {
    for key in [None, Some("order-7")] {
        let field = if key.is_some() { "idempotency_key" } else { "id" };
        let first = named(10, key, 1);
        let id = w.submit(10, first.clone()).await.job.id;
        w.change(11, id, queued(1, 11)).await.unwrap();

        let again = NewJob {
            spec: JobSpec {
                id: if key.is_some() { JobId::generate() } else { id },
                ..JobSpec::clone(&first.clone().spec)
            }
            .into(),
            ..first.clone()
        };
        let Submitted::Existing(job) = w.try_submit(20, again.clone()).await else { panic!("not found again") };
        assert_eq!((job.id, job.state, job.args.as_str()), (id, State::Queued, first.args.as_str()));

        let other = NewJob { body_hash: Some([2; 32]), ..again };
        let Submitted::Conflict { existing, clash } = w.try_submit(30, other).await else { panic!("no conflict") };
        assert_eq!((existing, clash.field()), (id, field));
    }
    assert_eq!(w.rows("jobs").await, 2);
}

pub async fn repeats_inside_one_group_are_one_job(w: &World) {
    let first = named(1, Some("k"), 1);
    let same = NewJob {
        spec: JobSpec { id: JobId::generate(), ..JobSpec::clone(&first.clone().spec) }.into(),
        ..first.clone()
    };
    let other = NewJob {
        spec: JobSpec { id: JobId::generate(), ..JobSpec::clone(&first.clone().spec) }.into(),
        body_hash: Some([2; 32]),
        ..first.clone()
    };
    let submits = [first, same, other].map(|job| Submit { job, claim: false }).into();
    let done = w.commit(1, Group { submits, ..Group::default() }).await.submits;
    let [Submitted::Created(c), Submitted::Existing(e), Submitted::Conflict { existing, .. }] = &done[..] else {
        panic!("{done:?}")
    };
    assert_eq!((e.id, *existing), (c.job.id, c.job.id));
    assert_eq!(w.rows("jobs").await, 1);
}

pub async fn a_key_belongs_to_its_mission(w: &World) {
    let here = named(1, Some("k"), 1);
    let there = NewJob {
        spec: JobSpec {
            id: JobId::generate(),
            mission: Mission::new("staging").unwrap(),
            ..JobSpec::clone(&here.clone().spec)
        }
        .into(),
        ..here.clone()
    };
    w.submit(1, here).await;
    w.submit(1, there).await;
}

pub async fn a_job_has_one_result_however_often_it_is_reported(w: &World) {
    let id = w.job_in(10, State::Running).await;
    let group = Group {
        changes: vec![(id, finished(id, 1, success("1"))), (id, finished(id, 1, success("2")))],
        ..Group::default()
    };
    let done = w.commit(20, group).await.changes;
    assert_eq!(done[0].as_ref().unwrap().job.state, State::Succeeded);
    assert_eq!(done[1].as_ref().unwrap_err(), &Ignored::Final);
    for _ in 0..3 {
        assert_eq!(w.change(30, id, finished(id, 1, success("3"))).await.unwrap_err(), Ignored::Final);
    }
    let job = w.job(id).await;
    assert_eq!((job.result.as_deref(), job.finished_at), (Some("1"), Some(Micros(20))));
    assert_eq!((w.rows("job_results").await, w.store.attempts(id).await.unwrap().len()), (1, 1));
    let unknown = JobId::generate();
    assert_eq!(w.change(30, unknown, finished(unknown, 1, success("3"))).await.unwrap_err(), Ignored::Unknown);
}

pub async fn a_late_result_of_an_earlier_attempt_is_fenced_off(w: &World) {
    let id = w.job_in(10, State::Running).await;
    w.change(20, id, finished(id, 1, failure(ErrorClass::Network))).await.unwrap();
    assert_eq!(w.change(30, id, finished(id, 1, success("0"))).await.unwrap_err(), Ignored::OtherAttempt);
    let job = w.job(id).await;
    assert_eq!((job.state, job.attempt, job.result), (State::Accepted, attempt(2), None));
}

pub async fn a_retry_waits_and_keeps_its_error(w: &World) {
    let id = w.job_in(10, State::Running).await;
    let changed = w.change(20, id, finished(id, 1, failure(ErrorClass::Transient))).await.unwrap();
    assert_eq!((changed.from, changed.failed, changed.dead), (State::Running, Some(ErrorClass::Transient), None));
    let at = changed.job.available_at.0;
    assert!(at >= 20 + 100_000, "half of the base wait at least: {at}");
    assert!(w.claim(at - 1, 10).await.is_empty());
    let due = w.store.claim_due(&w.owner, Micros(at), Micros(at + CLAIM), 10).await.unwrap();
    assert_eq!((due[0].id, due[0].attempt, due[0].args.as_str()), (id, attempt(2), r#"{"hello":"world"}"#));
    w.change(at + 1, id, queued(2, at + 1)).await.unwrap();
    let job = w.job(id).await;
    assert_eq!((job.state, job.error.unwrap().message), (State::Queued, "it was transient".to_owned()));
    let tries = w.store.attempts(id).await.unwrap();
    assert_eq!((tries[0].outcome.as_str(), tries[0].retry_at), ("failed", Some(Micros(at))));
}

fn states_of(messages: &[agentforge_orchestrator::store::OutboxMessage]) -> Vec<String> {
    let event = |r: &agentforge_orchestrator::store::OutboxMessage| {
        let event: JobEvent = serde_json::from_slice(&r.payload).unwrap();
        assert_eq!(
            (&*event.id, r.subject.as_str()),
            (r.msg_id.as_str(), format!("agentforge.events.job.dev.{}", event.data.state).as_str())
        );
        event.data.state.into_owned()
    };
    messages.iter().map(event).collect()
}

pub async fn every_state_is_published_once_and_in_order(w: &World) {
    let id = w.job_in(10, State::Running).await;
    let change = (id, finished(id, 1, failure(ErrorClass::Timeout)));
    let done = w.commit(20, Group { changes: vec![change.clone(), change], ..Group::default() }).await;
    assert_eq!(states_of(&messages(done.outbox)), ["accepted"]);
    // No news, no event: a second worker's word on a running job, and a late PubAck.
    w.change(30, id, started(id, 2, 30)).await.unwrap();
    w.change(31, id, queued(2, 31)).await.unwrap();
    w.change(40, id, finished(id, 2, success("1"))).await.unwrap();
    let all = w.outbox().await;
    assert_eq!(states_of(&all), ["accepted", "queued", "running", "accepted", "running", "succeeded"]);
    assert!(w.rows_of_outbox().await.windows(2).all(|p| p[0].seq < p[1].seq));
    let ids: std::collections::HashSet<_> = all.iter().map(|r| &r.msg_id).collect();
    assert_eq!(ids.len(), all.len());
}

pub async fn states_shorter_than_a_commit_are_not_told(w: &World) {
    let id = w.job_in(10, State::Accepted).await;
    let changes = vec![(id, queued(1, 11)), (id, started(id, 1, 12)), (id, finished(id, 1, success("1")))];
    let done = w.commit(20, Group { changes, ..Group::default() }).await;
    assert!(done.changes.iter().all(Result::is_ok));
    assert_eq!(states_of(&messages(done.outbox)), ["succeeded"]);
    let job = w.job(id).await;
    assert_eq!((job.state, job.queued_at, job.version), (State::Succeeded, Some(Micros(11)), 4));

    let quiet = World { events: EventMask::FINAL, ..World::sqlite().await };
    let id = quiet.job_in(10, State::Running).await;
    assert!(quiet.outbox().await.is_empty());
    quiet.change(20, id, Change::Cancel { at: Micros(20), by: None, only: [].into() }).await.unwrap();
    assert_eq!(states_of(&quiet.outbox().await), ["cancelled"]);
}

pub async fn a_job_submitted_and_cancelled_in_one_group_never_runs(w: &World) {
    let new = job(1);
    let id = new.id;
    let submits = vec![Submit { job: new, claim: true }];
    let group = Group {
        submits,
        changes: vec![(id, Change::Cancel { at: Micros(1), by: None, only: [].into() })],
        ..Group::default()
    };
    let done = w.commit(1, group).await;
    assert_eq!(done.outbox.len(), 1, "events of one commit are one row");
    assert_eq!(states_of(&messages(done.outbox)), ["accepted", "cancelled"]);
    assert!(!created(done.submits.into_iter().next().unwrap()).claimed);
    assert_eq!(w.job(id).await.state, State::Cancelled);
    assert!(w.claim(i64::MAX / 2, 10).await.is_empty());
    assert_eq!(w.store.accepted_count().await.unwrap(), 0);
}

pub async fn a_dead_job_makes_one_letter(w: &World) {
    let new = NewJob {
        spec: JobSpec {
            max_attempts: 2,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            ..JobSpec::clone(&job(1).spec)
        }
        .into(),
        ..job(1)
    };
    let id = w.submit(1, new).await.job.id;
    w.change(2, id, finished(id, 1, failure(ErrorClass::Network))).await.unwrap();
    let last = (id, finished(id, 2, failure(ErrorClass::Timeout)));
    let done = w.commit(3, Group { changes: vec![last.clone(), last], ..Group::default() }).await;
    assert!(done.changes[0].as_ref().unwrap().dead.is_some());
    assert_eq!(w.change(4, id, finished(id, 2, failure(ErrorClass::Timeout))).await.unwrap_err(), Ignored::Final);

    let letters: Vec<_> = w.outbox().await.into_iter().filter(|r| r.subject == "swarm.dlq.dev.default").collect();
    assert_eq!(letters.len(), 1);
    let letter: DeadLetterMessage = serde_json::from_slice(&letters[0].payload).unwrap();
    assert_eq!(
        (letter.reason.as_str(), letter.trace_id.as_deref()),
        ("attempts_exhausted", Some("0af7651916cd43dd8448eb211c80319c"))
    );
    let classes: Vec<_> = letter.attempts.iter().map(|a| (a.attempt.get(), a.class)).collect();
    assert_eq!(classes, [(1, ErrorClass::Network), (2, ErrorClass::Timeout)]);
    assert_eq!(letter.job.unwrap().args.unwrap().get(), r#"{"hello":"world"}"#);

    let listed = w.store.dead_letters(&filter()).await.unwrap().items;
    assert_eq!((listed.len(), listed[0].job, listed[0].id.as_str()), (1, Some(id), letter.id.as_str()));
    assert_eq!(listed[0].error.message, "it was timeout");
}

fn filter() -> agentforge_orchestrator::store::DeadLetterFilter {
    agentforge_orchestrator::store::DeadLetterFilter { limit: 100, ..Default::default() }
}

pub async fn bytes_that_were_no_job_make_one_letter(w: &World) {
    let rejected = |sequence| Rejected {
        worker: worker(),
        subject: "swarm.jobs.dev.mail".into(),
        stream: "swarm_jobs".into(),
        sequence,
        stored_at_ns: 7,
        reason: "not JSON".into(),
        payload_bytes: 3,
        payload_hex: "0001ff".into(),
        at: Micros(9),
        invalid_signature: false,
    };
    let group =
        |sequences: &[u64]| Group { rejects: sequences.iter().map(|s| rejected(*s)).collect(), ..Group::default() };
    assert_eq!(w.commit(10, group(&[1, 1, 2])).await.rejects_new.len(), 2);
    assert_eq!(w.commit(11, group(&[2, 3])).await.rejects_new.len(), 1);
    let listed = w.store.dead_letters(&filter()).await.unwrap().items;
    assert_eq!(listed.len(), 3);
    assert_eq!((listed[0].queue.as_str(), listed[0].reason.as_str(), listed[0].job), ("mail", "invalid_message", None));
    assert_eq!(w.outbox().await.len(), 3);
}

pub async fn a_redriven_job_starts_anew(w: &World) {
    let id = w.job_in(10, State::Dead).await;
    let deadline = w.job(id).await.deadline.unwrap();
    let group = Group {
        changes: vec![(id, Change::Redrive { at: Micros(100) }), (id, Change::Redrive { at: Micros(100) })],
        ..Group::default()
    };
    let done = w.commit(100, group).await.changes;
    assert_eq!(done[0].as_ref().unwrap().job.state, State::Accepted);
    assert_eq!(done[1].as_ref().unwrap_err(), &Ignored::Passed);
    assert!(w.store.dead_letters(&filter()).await.unwrap().items.is_empty());
    let all = agentforge_orchestrator::store::DeadLetterFilter { include_redriven: true, ..filter() };
    assert_eq!(w.store.dead_letters(&all).await.unwrap().items[0].redriven_at, Some(Micros(100)));

    assert_eq!(w.claim(100, 10).await, [id]);
    assert_eq!(w.change(101, id, finished(id, 1, success("0"))).await.unwrap_err(), Ignored::OtherAttempt);
    w.change(102, id, finished(id, 2, success("2"))).await.unwrap();
    let job = w.job(id).await;
    assert_eq!((job.state, job.result.as_deref(), job.error), (State::Succeeded, Some("2"), None));
    assert!(job.deadline.unwrap() > deadline, "a redriven job has its whole time again");
}

pub async fn everything_a_job_is_made_of_comes_back(w: &World) {
    // Without `..`: each field of a description is kept by both databases.
    let spec = JobSpec {
        id: JobId::generate(),
        mission: Mission::new("dev").unwrap(),
        queue: Queue::new("mail").unwrap(),
        tool: ToolName::new("send").unwrap(),
        task: Some("task".into()),
        args: r#"{"to":"ä €"}"#.into(),
        labels: [("team".into(), "a".into()), ("x".into(), "ä €".into())].into(),
        max_attempts: 9,
        timeout: Duration::from_micros(1_234_567),
        retry: RetryPolicy { base: Some(Duration::from_secs(1)), cap: Some(Duration::from_secs(9)) },
        run_at: Some(Micros(50)),
        reuse: true,
        idempotency_key: Some("key".into()),
        schedule_id: Some(ScheduleId::generate()),
        scheduled_at: Some(Micros(77)),
        traceparent: Some("00-1-2-3".into()),
        request_id: Some("r-1".into()),
        submitted_by: Some("ci".into()),
        created_at: Micros(10),
    };
    let new = NewJob { spec: spec.into(), id_from_caller: true, body_hash: Some([3; 32]), ..job(10) };
    let c = w.submit(20, new.clone()).await;
    let got = w.job(new.id).await;
    assert_eq!((&got.spec, got.seq, got.deadline), (&*new.spec, c.seq, new.deadline));
    assert_eq!((got.available_at, got.version), (Micros(50), 1));

    let output_ref = OutputRef { bucket: "b".into(), name: "n".into(), size: 9, sha256: "ff".into() };
    let earlier = JobId::generate();
    let outcome = Outcome::Succeeded(Success {
        output: None,
        output_ref: Some(output_ref.clone()),
        idempotent_replay: Some(earlier),
    });
    w.change(60, new.id, finished(new.id, 1, outcome)).await.unwrap();
    let got = w.job(new.id).await;
    assert_eq!((got.output_ref, got.replay_of, got.result), (Some(output_ref), Some(earlier), None));
    // The worker's clock said 5, before the job was accepted.
    assert_eq!(
        (got.worker.as_deref(), got.started_at, got.finished_at),
        (Some("worker-1"), Some(got.spec.created_at), Some(Micros(60)))
    );
}

pub async fn hostile_text_is_stored(w: &World) {
    let id = w.job_in(10, State::Running).await;
    let mut failure = agentforge_proto::bus::Failure::new(ErrorClass::Runtime, "a\0b '; DROP TABLE jobs; --");
    failure.log_tail = "\u{1b}[31m\0\u{fffd}€".into();
    w.change(20, id, finished(id, 1, Outcome::Failed(failure))).await.unwrap();
    let error = w.job(id).await.error.unwrap();
    assert!(error.message.starts_with('a') && error.message.ends_with("--"), "{error:?}");

    let args = format!(r#"{{"x":"{}","nul":"\u0000"}}"#, "y".repeat(1 << 20));
    let big = w
        .submit(30, NewJob { spec: JobSpec { args: args.clone(), ..JobSpec::clone(&job(30).spec) }.into(), ..job(30) })
        .await
        .job
        .id;
    assert_eq!(w.job(big).await.args, args);
}

/// Replicas that get the same submission at once agree on one job. On SQLite there is one process, and
/// its callers take turns.
pub async fn two_stores_agree_on_one_job(w: &World) {
    let other = w.other().await;
    for round in 0..20 {
        let first = named(round, Some(&format!("round-{round}")), 1);
        let second = NewJob {
            spec: JobSpec { id: JobId::generate(), ..JobSpec::clone(&first.clone().spec) }.into(),
            ..first.clone()
        };
        let group = |job| Group { submits: vec![Submit { job, claim: false }], ..Group::default() };
        let (a, b) =
            tokio::join!(w.store.commit(group(first), w.ctx(round)), other.commit(group(second), w.ctx(round)),);
        let id = |s: &Submitted| match s {
            Submitted::Created(c) => (c.job.id, 1),
            Submitted::Existing(job) => (job.id, 0),
            Submitted::Conflict { .. } => panic!("a conflict with itself"),
        };
        let (a, b) = (id(&a.unwrap().submits[0]), id(&b.unwrap().submits[0]));
        assert_eq!((a.0, a.1 + b.1), (b.0, 1));
    }
    assert_eq!(w.rows("jobs").await, 20);
}

/// A caller that goes away in the middle of a commit leaves nothing half done, and no lock behind.
pub async fn a_dropped_commit_is_whole_or_nothing(w: &World) {
    let watched = w.submit(1, job(1)).await.job.id;
    for n in 0..120_u64 {
        let submits = (0..7).map(|_| Submit { job: job(1), claim: false }).collect();
        let changes =
            vec![(watched, Change::Republish { attempt: attempt(1), at: Micros(1) }), (watched, queued(1, 1))];
        let commit = w.store.commit(Group { submits, changes, ..Group::default() }, w.ctx(1));
        if let Ok(done) = tokio::time::timeout(Duration::from_micros(n * 40), commit).await {
            done.expect("nobody suffers from the one before");
        }
    }
    let last = w.submit_many(2, 7).await;
    assert_eq!(w.store.versions(&last).await.unwrap().len(), 7);
    let (jobs, payloads) = (w.rows("jobs").await, w.rows("job_payloads").await);
    assert_eq!((jobs, jobs % 7), (payloads, 1));
    // No connection was left inside a transaction: what is written now is there for others at once.
    let agents: Vec<_> = (0..40).map(|n| agent(&format!("agent-{n}"), "dev", 1, 0)).collect();
    let beats = agents.iter().map(|a| w.store.upsert_agents(std::slice::from_ref(a)));
    for beat in futures_util::future::join_all(beats).await {
        beat.unwrap();
    }
    assert_eq!(w.rows("agents").await, 40);
}

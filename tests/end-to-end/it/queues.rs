//! Queues do not affect each other: one without workers, one that is full, many that are not wanted.

use crate::api::Api;
use crate::stack::{Options, Stack};
use agentforge_harness::{NatsOptions, NatsServer, Postgres, eventually, require};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

async fn post(api: &Api, queue: &str, args: Value) -> crate::api::Answer {
    api.post("/v1/jobs", &json!({"tool": "echo", "queue": queue, "args": args})).await.unwrap()
}

async fn accepted(api: &Api, queue: &str, args: Value) -> String {
    let answer = post(api, queue, args).await;
    assert_eq!(answer.status.as_u16(), 202, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}

async fn a_queue_without_a_worker(store: Option<String>, orchestrators: usize) {
    let mut options = Options::new().orchestrator("JOBS_MAX_BYTES", "1MiB").orchestrator("JOB_DEADLINE", "off");
    let is_shared = store.is_some();
    options.store = store;
    options.orchestrators = orchestrators;
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    let mut stopped = vec![];
    for n in 0..40 {
        let api = stack.api_of(n % orchestrators);
        stopped.push(accepted(&api, "nobody", json!({"n": n, "pad": "x".repeat(50_000)})).await);
    }
    eventually(SOON, "the relay holds that queue", || async {
        api.metric("agentforge_relay_held", &["lane=\"jobs\"", "queue=\"nobody\""]).await == 1.0
    })
    .await;
    for n in 0..20 {
        let id = accepted(&api, "default", json!({"n": n, "pad": "y".repeat(20_000)})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded", "the other queue is served");
    }
    assert_eq!(api.metric("agentforge_relay_held", &["lane=\"jobs\"", "queue=\"default\""]).await, 0.0);

    // The same after a start on that backlog.
    stack.kill_orchestrator(0).await;
    let id = accepted(&api, "default", json!({"after": "a kill"})).await;
    assert_eq!(api.finished(&id).await["state"], "succeeded");
    let bytes = stack.jetstream().await.get_stream("swarm_jobs").await.unwrap().cached_info().state.bytes;
    assert!(bytes > 200_000, "the stopped queue has its share, {bytes} bytes");

    // A worker comes for it: all of them run, in their order.
    let mut worker = stack.options.clone().worker("WORKER_QUEUES", "nobody").worker("WORKER_CONCURRENCY", "1");
    std::mem::swap(&mut stack.options, &mut worker);
    let mut nobody = stack.spawn_worker();
    nobody.ready(SOON).await;
    stack.workers.push(nobody);
    let mut begun = vec![];
    for id in &stopped {
        let job = api.finished(id).await;
        assert_eq!(job["state"], "succeeded");
        begun.push(job["started_at"].as_str().unwrap().to_owned());
    }
    // Replicas share a queue's jobs as they come: each keeps the order of its own. On Postgres what the killed one had
    // claimed comes when its claims run out, behind the others.
    assert!(begun.is_sorted() || is_shared, "order inside a queue stays");
    eventually(SOON, "nothing is held", || async { api.metric("agentforge_relay_held", &[]).await == 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_a_worker_holds_itself_alone() {
    let Some(()) = require("nats-server") else { return };
    a_queue_without_a_worker(None, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_a_worker_holds_itself_alone_on_postgres() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let store = Postgres::start().await.database("stopped").await;
    a_queue_without_a_worker(Some(store), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_a_worker_holds_itself_alone_with_two_orchestrators() {
    let (Some(()), Some(())) = (require("nats-server"), require("postgres")) else { return };
    let store = Postgres::start().await.database("stopped_twice").await;
    a_queue_without_a_worker(Some(store), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_stopped_queues_leave_room_for_the_one_that_moves() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new().orchestrator("JOBS_MAX_BYTES", "1MiB").orchestrator("JOB_DEADLINE", "off");
    let stack = Stack::start(options).await;
    let api = stack.api();
    let mut stopped = vec![];
    for n in 0..150 {
        stopped.push(accepted(&api, &format!("stopped-{}", n % 30), json!({"pad": "x".repeat(20_000)})).await);
    }
    eventually(SOON, "the relay holds most of them", || async {
        let held = api.metric("agentforge_relay_held", &["lane=\"jobs\"", "reason=\"full\""]).await;
        if held >= 15.0 { Ok(()) } else { Err(held) }
    })
    .await;
    for n in 0..100 {
        let id = accepted(&api, "default", json!({"n": n})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded", "the one that moves is served");
    }
    // Cancelled, they are out of the way.
    for id in &stopped {
        assert_eq!(api.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await.unwrap().status.as_u16(), 200);
    }
    eventually(SOON, "nothing is held", || async { api.metric("agentforge_relay_held", &[]).await == 0.0 }).await;
    let js = stack.jetstream().await;
    eventually(SOON, "and nothing is left in the stream", || async {
        js.get_stream("swarm_jobs").await.unwrap().cached_info().state.messages == 0
    })
    .await;
}

/// Who may not publish to one queue's subject can still publish to all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_subject_is_denied_holds_itself_alone() {
    let Some(()) = require("nats-server") else { return };
    let users = "authorization { users: [ \
        {user: orchestrator, password: p, permissions: {publish: {allow: [\">\"], deny: [\"swarm.jobs.dev.denied\"]}}}, \
        {user: worker, password: p} ] }";
    let nats = NatsServer::start(NatsOptions::default().extra(users)).await;
    let options = Options::new()
        .orchestrator("NATS_USER", "orchestrator")
        .orchestrator("NATS_PASSWORD", "p")
        .worker("NATS_USER", "worker")
        .worker("NATS_PASSWORD", "p");
    let stack = Stack::start_on(nats, options).await;
    let api = stack.api();
    let denied = accepted(&api, "denied", json!({})).await;
    eventually(SOON, "the relay holds that queue", || async {
        api.metric("agentforge_relay_held", &["lane=\"jobs\"", "queue=\"denied\""]).await == 1.0
    })
    .await;
    for n in 0..10 {
        let id = accepted(&api, "default", json!({"n": n})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded", "the other queue is served");
    }
    assert_eq!(api.read(&denied).await["state"], "accepted", "no job is lost to a permission");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_cannot_leave_uses_its_share_of_the_outbox() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new()
        .orchestrator("JOBS_MAX_BYTES", "1MiB")
        .orchestrator("OUTBOX_MAX", "60")
        .orchestrator("JOB_DEADLINE", "off");
    let stack = Stack::start(options).await;
    let api = stack.api();
    let mut n = 0;
    let refused = loop {
        let answer = post(&api, "bulk", json!({"pad": "x".repeat(50_000)})).await;
        if answer.status.as_u16() == 429 {
            break answer;
        }
        n += 1;
        assert!(n < 100, "nobody pushed back");
    };
    let why = refused.body["detail"].as_str().unwrap();
    for told in ["queue bulk", "OUTBOX_MAX (60)", "swarm_jobs"] {
        assert!(why.contains(told), "{told} is not in: {why}");
    }
    assert_eq!(refused.body["code"], "outbox_full");
    for n in 0..10 {
        let id = accepted(&api, "default", json!({"n": n})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded", "the other queue is served");
    }
}

/// What is for later takes nothing away from what is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_jobs_have_a_bound_of_their_own() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new().orchestrator("OUTBOX_MAX", "20").orchestrator("SCHEDULED_MAX", "50");
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    let at = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 21)).to_string();
    let delayed = || json!({"tool": "echo", "run_at": at});
    for _ in 0..50 {
        api.submit(delayed()).await;
    }
    for restarted in [false, true] {
        if restarted {
            stack.kill_orchestrator(0).await;
        }
        let id = api.job("echo", json!({"restarted": restarted})).await;
        assert_eq!(api.finished(&id).await["state"], "succeeded");
        eventually(SOON, "they are counted", || async { api.metric("agentforge_scheduled_jobs", &[]).await == 50.0 })
            .await;
        eventually(SOON, "none of them as due", || async { api.metric("agentforge_outbox_jobs", &[]).await == 0.0 })
            .await;
        let refused = api.post("/v1/jobs", &delayed()).await.unwrap();
        assert_eq!((refused.status.as_u16(), &refused.body["code"]), (429, &json!("outbox_full")));
        let why = refused.body["detail"].as_str().unwrap();
        assert!(why.contains("SCHEDULED_MAX") && why.contains("50") && !why.contains("NATS"), "{why}");
    }
    // A retry that waits is for later, too, and never refused.
    let failing = json!({"tool": "fail", "args": {"class": "transient"}, "max_attempts": 3});
    let id = api.submit(failing).await["id"].as_str().unwrap().to_owned();
    assert_eq!(api.finished(&id).await["state"], "dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_time_has_come_is_due_and_runs() {
    let Some(()) = require("nats-server") else { return };
    let stack = Stack::start(Options::new().orchestrator("OUTBOX_MAX", "5")).await;
    let api = stack.api();
    let mut ids = vec![];
    for n in 0..20 {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
        let job = api.submit(json!({"tool": "echo", "args": {"n": n}, "run_at": at.to_string()})).await;
        ids.push(job["id"].as_str().unwrap().to_owned());
    }
    for id in ids {
        assert_eq!(api.finished(&id).await["state"], "succeeded");
    }
    eventually(SOON, "none is left", || async { api.metric("agentforge_scheduled_jobs", &[]).await == 0.0 }).await;
}

async fn consumers(stack: &Stack) -> Vec<String> {
    use futures_util::TryStreamExt;
    let js = stack.jetstream().await;
    let names = js.get_stream("swarm_jobs").await.unwrap().consumer_names().try_collect::<Vec<_>>().await;
    let mut names = names.unwrap();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_submitters_use_up_no_consumers() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new()
        .orchestrator("QUEUES", "scaled-from-zero")
        .orchestrator("QUEUES_MAX", "20")
        .orchestrator("QUEUE_IDLE_AFTER", "2s")
        .orchestrator("JOB_DEADLINE", "off");
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    // One that an earlier process left.
    let js = stack.jetstream().await;
    let stray = async_nats::jetstream::consumer::pull::Config {
        durable_name: Some("worker-dev_stray".into()),
        filter_subject: "swarm.jobs.dev.stray".into(),
        ..Default::default()
    };
    js.get_stream("swarm_jobs").await.unwrap().create_consumer(stray).await.unwrap();

    let mut taken = 0;
    let refused = loop {
        let answer = post(&api, &format!("q{taken}"), json!({})).await;
        if answer.status.as_u16() != 202 {
            break answer;
        }
        taken += 1;
        assert!(taken < 100, "queues have no bound");
    };
    assert_eq!((refused.status.as_u16(), &refused.body["code"]), (429, &json!("too_many_requests")));
    assert_eq!(refused.body["field"], "queue");
    let why = refused.body["detail"].as_str().unwrap();
    assert!(why.contains("QUEUES_MAX") && why.contains("20"), "{why}");
    assert!((18..=20).contains(&taken), "{taken} of 20");
    // Known ones are taken, and those that are configured.
    accepted(&api, "q0", json!({})).await;
    let id = accepted(&api, "default", json!({})).await;
    assert_eq!(api.finished(&id).await["state"], "succeeded");

    eventually(SOON, "only queues that are served or configured have a consumer", || async {
        let names = consumers(&stack).await;
        if names == ["worker-dev", "worker-dev_scaled-from-zero"] { Ok(()) } else { Err(names) }
    })
    .await;
    // A worker for one of them: it gets its consumer, and the jobs that waited run.
    let served = stack.options.clone().worker("WORKER_QUEUES", "q0,q1");
    stack.options = served;
    let mut worker = stack.spawn_worker();
    worker.ready(SOON).await;
    stack.workers.push(worker);
    let id = accepted(&api, "q1", json!({"served": true})).await;
    assert_eq!(api.finished(&id).await["state"], "succeeded");
    assert!(consumers(&stack).await.contains(&"worker-dev_q0".to_owned()));
    eventually(SOON, "both queues are empty", || async {
        let jobs = stack.jetstream().await.get_stream("swarm_jobs").await.unwrap();
        for durable in ["worker-dev_q0", "worker-dev_q1"] {
            let left = jobs.consumer_info(durable).await.unwrap();
            if left.num_pending > 0 || left.num_ack_pending > 0 {
                return Err(format!(
                    "{durable}: {} pending, {} unacknowledged",
                    left.num_pending, left.num_ack_pending
                ));
            }
        }
        Ok(())
    })
    .await;
    // It goes, and after a while its consumers do; over restarts their number does not grow.
    stack.workers.pop().unwrap().kill9();
    stack.kill_orchestrator(0).await;
    eventually(SOON, "idle ones are removed", || async {
        let names = consumers(&stack).await;
        if names == ["worker-dev", "worker-dev_scaled-from-zero"] { Ok(()) } else { Err(names) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typo_in_the_queue_is_seen_at_once() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new()).await;
    let api = stack.api();
    // Workers are known from their first heartbeat on.
    eventually(SOON, "the worker is known", || async { api.metric("agentforge_agents", &["online"]).await >= 1.0 })
        .await;
    let answer = post(&api, "defualt", json!({})).await;
    assert_eq!(answer.status.as_u16(), 202);
    let warning = answer.body["warning"].as_str().unwrap();
    assert!(warning.starts_with("no worker serves this queue") && warning.contains("served are: default"), "{warning}");
    let job = api.read(answer.body["id"].as_str().unwrap()).await;
    assert!(job["warning"].as_str().unwrap().starts_with("no worker serves this queue"), "{job}");
    let good = api.submit(json!({"tool": "echo"})).await;
    assert_eq!(good["warning"], Value::Null, "{good}");
    assert_eq!(api.finished(good["id"].as_str().unwrap()).await["warning"], Value::Null);
    // The workers of the right one go.
    stack.workers[0].kill9();
    eventually(SOON, "the queue is served no more", || async {
        let job = api.submit(json!({"tool": "echo"})).await;
        job["warning"].as_str().is_some_and(|w| w.contains("no worker is online"))
    })
    .await;
}

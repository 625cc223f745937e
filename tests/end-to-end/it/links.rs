//! NATS goes away for long: callers are still served, nothing is lost, all drains after.

use crate::oracle::Submitted;
use crate::stack::{Options, Stack};
use agentforge_harness::{NatsOptions, NatsServer, TcpProxy, eventually, require};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nats_is_away_jobs_are_accepted_and_run_after_its_return() {
    let Some(()) = require("nats-server") else { return };
    let mut stack = Stack::start(Options::new().orchestrator("JOB_DEADLINE", "off")).await;
    let api = stack.api();
    let before = Submitted::submit(&api, 20, "before", "echo").await;
    before.all_final(&api, Duration::from_secs(30)).await;
    assert_eq!(api.metric("agentforge_nats_connected", &[]).await, 1.0);

    stack.nats.kill9();
    gauge_becomes(&api, 0.0).await;
    // Longer than any publish or request of the client waits.
    let during = Submitted::submit(&api, 300, "during", "echo").await;
    let held = eventually(Duration::from_secs(20), "the relay says that it is held", || async {
        let held = api.metric("agentforge_relay_held", &["lane=\"jobs\""]).await;
        if held >= 1.0 { Ok(held) } else { Err(held) }
    });
    held.await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let body = api.get("/readyz").await.unwrap();
    assert_eq!(body.status.as_u16(), 200, "an orchestrator without NATS still does its callers' work: {}", body.body);
    assert!(stack.orchestrators[0].is_running() && stack.workers[0].is_running());
    let waiting = api.read(during.0.keys().next().unwrap()).await;
    assert_eq!(waiting["state"], "accepted");

    stack.nats.restart().await;
    gauge_becomes(&api, 1.0).await;
    let mut all = before;
    during.all_final(&api, Duration::from_secs(60)).await;
    all.0.extend(during.0);
    all.judge(&stack).await;
    assert_eq!(api.metric("agentforge_relay_held", &["lane=\"jobs\""]).await, 0.0);
}

async fn gauge_becomes(api: &crate::api::Api, wanted: f64) {
    eventually(Duration::from_secs(30), "the link gauge tells the truth", || async {
        let is = api.metric("agentforge_nats_connected", &[]).await;
        if is == wanted { Ok(()) } else { Err(is) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_started_before_nats_are_live_and_work_when_it_comes() {
    let Some(()) = require("nats-server") else { return };
    let nats = NatsServer::start(NatsOptions::default()).await;
    let proxy = TcpProxy::start(nats.address()).await;
    proxy.cut();
    let mut options = Options::new().workers(0);
    options.nats_url = Some(proxy.nats_url());
    let stack = Stack::start_on(nats, options).await;
    let api = stack.api();
    assert_eq!(api.metric("agentforge_nats_connected", &[]).await, 0.0, "0 from the first scrape");
    let id = api.job("echo", json!({"early": 1})).await;
    let mut worker = stack.spawn_worker();
    worker.ready(Duration::from_secs(60)).await;
    proxy.restore();
    assert_eq!(api.finished(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_dies_without_a_word_is_noticed_and_the_result_arrives() {
    let Some(()) = require("nats-server") else { return };
    let nats = NatsServer::start(NatsOptions::default()).await;
    let proxy = TcpProxy::start(nats.address()).await;
    let mut options = Options::new().orchestrator("JOB_DEADLINE", "off");
    options.nats_url = Some(proxy.nats_url());
    let stack = Stack::start_on(nats, options).await;
    let api = stack.api();
    let id = api.job("sleep", json!({"ms": 1500})).await;
    eventually(Duration::from_secs(20), "the job runs", || async { api.read(&id).await["state"] == "running" }).await;
    proxy.blackhole();
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.drop_connections();
    proxy.restore();
    let job = api.finished(&id).await;
    assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("succeeded"), Some(1)));
}

//! Whether the hub answers is reported correctly, and the site keeps working when it does not.

use super::{NOTICED, SITE, Site, link_becomes, link_status};
use crate::api::{Api, metric_of};
use crate::oracle::Submitted;
use crate::stack::{Options, Stack};
use agentforge_harness::{EdgeSite, NatsOptions, NatsServer, eventually, require};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_status_is_0_from_the_first_scrape_and_follows_cuts_and_restarts() {
    let Some(()) = require("nats-server") else { return };
    let mut site = Site::start(EdgeSite::start_cut_off(SITE).await, Options::new().workers(0)).await;
    let api = site.api();
    assert_eq!(link_status(&api).await, Some(0.0), "there never was a link");
    connected_and_ready(&api).await;

    site.link.restore();
    link_becomes(&api, 1.0).await;
    site.link.cut();
    link_becomes(&api, 0.0).await;
    connected_and_ready(&api).await;
    site.link.restore();
    link_becomes(&api, 1.0).await;

    // Gone without a word: connections stay open and nothing comes.
    site.link.blackhole();
    link_becomes(&api, 0.0).await;
    site.link.restore();
    link_becomes(&api, 1.0).await;

    site.hub.kill9();
    link_becomes(&api, 0.0).await;
    connected_and_ready(&api).await;
    site.hub.restart().await;
    link_becomes(&api, 1.0).await;

    // The site's own server is on the way to the hub, too.
    site.stack.nats.kill9();
    link_becomes(&api, 0.0).await;
    site.stack.nats.restart().await;
    link_becomes(&api, 1.0).await;
}

/// A link that is down does not make a service unready: jobs are accepted and run.
async fn connected_and_ready(api: &Api) {
    eventually(NOTICED, "the local connection is up", || async {
        api.metric("agentforge_nats_connected", &[]).await == 1.0
    })
    .await;
    eventually(NOTICED, "it is ready", || async {
        let ready = api.get("/readyz").await.map_err(|e| e.to_string())?;
        if ready.status == 200 { Ok(()) } else { Err(ready.body.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_hub_domain_the_connected_server_is_the_hub() {
    let Some(()) = require("nats-server") else { return };
    let mut nats = NatsServer::start(NatsOptions::default()).await;
    nats.kill9();
    let mut stack = Stack::start_on(nats, Options::new().workers(0).orchestrator("SITE", SITE)).await;
    let api = stack.api();
    assert_eq!(link_status(&api).await, Some(0.0), "there never was a link");
    stack.nats.restart().await;
    link_becomes(&api, 1.0).await;
    stack.nats.kill9();
    link_becomes(&api, 0.0).await;
    stack.nats.restart().await;
    link_becomes(&api, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_accepted_and_run_at_a_site_that_is_cut_off() {
    let Some(()) = require("nats-server") else { return };
    let site = Site::start(EdgeSite::start(SITE).await, Options::new()).await;
    let api = site.api();
    link_becomes(&api, 1.0).await;
    site.link.cut();
    link_becomes(&api, 0.0).await;
    let submitted = Submitted::submit(&api, 200, "cut-off", "echo").await;
    submitted.all_final(&api, Duration::from_secs(60)).await;
    submitted.judge(&site.stack).await;
    assert_eq!(link_status(&api).await, Some(0.0), "the hub came back by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_seen_by_its_hub_until_it_is_cut_off() {
    let Some(()) = require("nats-server") else { return };
    let servers = EdgeSite::start(SITE).await;
    let Site { hub, gate: _gate, link, stack: at_site } = Site::start(servers, Options::new().workers(0)).await;
    let at_hub = Stack::start_on(hub, Options::new().workers(0).orchestrator("SITE", "centre")).await;
    let api = at_hub.api();
    let first = seen_after(&api, 0.0).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 60.0..=now + 1.0).contains(&first), "{first} is not the time of now, {now}");
    seen_after(&api, first).await;

    link.cut();
    link_becomes(&at_site.api(), 0.0).await;
    let last = seen(&api).await.unwrap();
    // Two beats at least would have come.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(seen(&api).await, Some(last), "a site that is cut off was seen");
    link.restore();
    seen_after(&api, last).await;

    // Messages sent there by others are bounded and counted.
    let client = async_nats::connect(at_hub.nats.url()).await.unwrap();
    client.publish("edge.site.no_such_name.seen", "".into()).await.unwrap();
    eventually(NOTICED, "a beat without a site's name is counted", || async {
        api.metric("edge_site_beats_ignored_total", &["reason=\"name\""]).await == 1.0
    })
    .await;
    let page = api.text("/metrics").await.unwrap();
    assert!(!page.contains("no_such_name"), "a label was taken from a subject that names no site");
    let of_site = at_site.api().text("/metrics").await.unwrap();
    assert_eq!(metric_of(&of_site, "edge_site_last_seen_timestamp_seconds", &[]), 0.0, "a site exports no sites");
    let client = async_nats::connect(at_hub.nats.url()).await.unwrap();
    for stream in ["swarm_jobs", "events", "swarm_dlq"] {
        let info = async_nats::jetstream::new(client.clone()).get_stream(stream).await.unwrap().cached_info().clone();
        assert_eq!(info.state.messages, 0, "{stream} keeps beats");
    }
}

async fn seen(api: &Api) -> Option<f64> {
    let series = format!("edge_site_last_seen_timestamp_seconds{{site=\"{SITE}\"}} ");
    let page = api.text("/metrics").await.ok()?;
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

async fn seen_after(api: &Api, then: f64) -> f64 {
    eventually(NOTICED, &format!("the site is seen after {then}"), || async {
        match seen(api).await {
            Some(at) if at > then => Ok(at),
            other => Err(other),
        }
    })
    .await
}

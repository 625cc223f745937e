//! The pages of metrics of the whole running system, held against what is declared.

use crate::registry;
use crate::stack::{DEADLINE, Options, Stack, sum};
use agentforge_harness::{NatsCluster, NatsOptions, NatsServer, cargo_bin, eventually, http_get, http_post, require};
use agentforge_stack::roster::{self, BROADCASTER, CONSOLE, NATS_EXPORTER, ORCHESTRATOR, SYNCDAEMON, TACTICAL_API};
use async_nats::jetstream::{self, consumer::pull, stream};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What services declare by a list that they share, and have no use for.
const NOT_OF: &[(&str, &str, &str)] = &[
    (SYNCDAEMON, "agentforge_loop_last_progress_timestamp_seconds", "it pulls from no consumer"),
    (TACTICAL_API, "agentforge_loop_last_progress_timestamp_seconds", "it pulls from no consumer"),
    (CONSOLE, "agentforge_loop_last_progress_timestamp_seconds", "it pulls from no consumer"),
    (NATS_EXPORTER, "agentforge_ready", "its page is about NATS; /readyz says it"),
];
/// What there is only with a setting, or after a body, that this system does not have.
const ONLY_WITH: &[(&str, &str)] = &[
    ("agentforge_tls_certificate_expiry_timestamp_seconds", "TLS_CERT"),
    ("agentforge_tls_files_unusable", "TLS_CERT"),
    ("agentforge_tls_reloads_total", "TLS_CERT"),
    ("nats_exporter_target_certificate_expiry_timestamp_seconds", "a target with TLS"),
    ("agentforge_access_issuer_ok", "ACCESS_ISSUERS"),
    ("agentforge_access_tokens_file_ok", "ACCESS_TOKENS_FILE"),
    ("agentforge_access_next_token_expiry_timestamp_seconds", "ACCESS_TOKENS_FILE"),
    ("agentforge_access_locked_addresses", "tokens"),
    ("agentforge_request_bodies_bytes", "a body"),
];
/// What only a service with an HTTP API has: others have probes, a status or a page of metrics.
const OF_APIS: [&str; 2] = ["agentforge_http_requests_total", "agentforge_http_request_duration_seconds"];

fn is_excused(service: &str, metric: &str) -> bool {
    let has_api = roster::find(service).is_some_and(|row| row.openapi.is_some());
    ONLY_WITH.iter().any(|(name, _)| *name == metric)
        || NOT_OF.iter().any(|(of, name, _)| *of == service && *name == metric)
        || (!has_api && OF_APIS.contains(&metric))
}

/// Families of a page, as its `# TYPE` lines name them, that have a series.
fn families(page: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let series: BTreeSet<&str> =
        page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    for line in page.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else { continue };
        let has = ["", "_bucket"].iter().any(|end| series.contains(format!("{name}{end}").as_str()));
        if has {
            found.insert(name.to_owned(), kind.to_owned());
        }
    }
    found
}

/// Somebody who looks at the live picture for as long as this lives.
async fn viewer(base: &str) -> TcpStream {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).await.unwrap();
    let ask = "GET /events/stream HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    stream
}

/// A worker of another site shows itself with a certificate, and so does the site.
async fn visit(stack: &Stack) {
    let nats = async_nats::connect(stack.nats.url()).await.unwrap();
    let beat = json!({
        "agent": "pier-1", "mission": "dev", "site": "pier-7", "host": "h", "version": "1", "tools": [], "queues": [],
        "capacity": 1, "inflight": 0, "interval_ms": 3_600_000, "leaving": false, "running": [],
        "certificate_expires_at": 4_000_000_000_000_000_i64, "clock_skew_us": 1_500,
    });
    eventually(DEADLINE, "the beat is answered", async || {
        nats.request("swarm.agents.dev.heartbeat", beat.to_string().into()).await.map(drop)
    })
    .await;
    nats.publish("edge.site.pier-7.seen", "".into()).await.unwrap();
    nats.flush().await.unwrap();
}

/// What one server cannot show: streams with replicas, of which one is a mirror and one has a source.
async fn replicate(cluster: &NatsCluster) {
    let js = jetstream::new(async_nats::connect(cluster.servers()[0].url()).await.unwrap());
    let origin = stream::Config {
        name: "ORIGIN".into(),
        subjects: vec!["origin.>".into()],
        num_replicas: 3,
        ..Default::default()
    };
    // In a cluster the leader of what is new may not be elected yet, and not every server knows it at once.
    let made = eventually(DEADLINE, "ORIGIN is created", || js.create_stream(origin.clone())).await;
    // Nothing is taken, so that the oldest message is pending.
    let reader = pull::Config { durable_name: Some("reader".into()), ..Default::default() };
    eventually(DEADLINE, "its consumer is created", || made.create_consumer(reader.clone())).await;
    let from = || stream::Source { name: "ORIGIN".into(), ..Default::default() };
    for copy in [
        stream::Config { name: "COPY".into(), mirror: Some(from()), ..Default::default() },
        stream::Config { name: "GATHERED".into(), sources: Some(vec![from()]), ..Default::default() },
    ] {
        eventually(DEADLINE, "a copy of it is created", || js.create_stream(copy.clone())).await;
    }
    eventually(DEADLINE, "a message is stored", async || js.publish("origin.a", "1".into()).await.ok()?.await.ok())
        .await;
}

/// Makes the system do a little of everything.
async fn exercise(stack: &Stack) {
    let ok = stack.job("echo", json!({"n": 1})).await;
    stack.reaches(&ok, "succeeded").await;
    let dead = stack.job_as(json!({"tool": "fail", "args": {"class": "transient"}, "max_attempts": 2})).await;
    stack.reaches(&dead, "dead").await;
    let reused = json!({"tool": "echo", "args": {"same": true}, "reuse": true});
    for _ in 0..2 {
        let id = stack.job_as(reused.clone()).await;
        stack.reaches(&id, "succeeded").await;
    }
    let (status, refused) = stack.post("/v1/jobs", &[], &json!({"tool": "no such name!", "args": {}})).await;
    assert_eq!(status, 400, "{refused}");
    // No worker serves that queue, so it waits.
    stack.job_as(json!({"tool": "echo", "args": {}, "queue": "nobody"})).await;
    for service in stack.pages().into_keys().filter(|service| *service != NATS_EXPORTER) {
        let _ = http_get(&format!("{}/v1/nothing", stack.http(service)), &[]).await;
        let _ = http_get(&format!("{}/readyz", stack.http(service)), &[]).await;
    }
    let keyed = json!({"tool": "echo", "args": {}, "idempotency_key": "twice"});
    stack.job_as(keyed.clone()).await;
    stack.job_as(keyed).await;
    let item = json!({"text": "Look at the pier", "owner": "ada"}).to_string();
    let (status, answer) = http_post(&format!("{}/api/intake", stack.http(CONSOLE)), &item).await.unwrap();
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
    std::fs::write(stack.replay_dir().join("frame.bin"), b"evidence").unwrap();
}

#[tokio::test]
async fn a_scrape_of_the_whole_system_has_every_declared_metric() {
    let Some(()) = require("nats-server") else { return };
    let (url, _heard) = crate::traces::webhooks().await;
    let cluster = NatsCluster::start(NatsOptions::default()).await;
    replicate(&cluster).await;
    let monitors = cluster.servers().iter().map(NatsServer::monitor_url).collect();
    let options = Options { watched: monitors, ..Options::default() }
        .set(BROADCASTER, "WEBHOOK_URL", url)
        .set(BROADCASTER, "EGRESS_ALLOW", "127.0.0.1/32")
        .set(BROADCASTER, "BROADCASTER_SUBJECTS", "agentforge.events.>")
        .set(SYNCDAEMON, "SITE", "north")
        .set(CONSOLE, "NATS_MONITOR_URL", cluster.servers()[0].monitor_url());
    let stack = Stack::start(options).await;
    let _viewer = viewer(&stack.http(TACTICAL_API)).await;
    exercise(&stack).await;
    visit(&stack).await;

    let declared = registry::declared();
    eventually(DEADLINE, "every declared metric is on its service's page", async || {
        let mut missing = Vec::new();
        for (service, metrics) in &declared {
            let page = stack.page(service).await;
            let shown = families(&page);
            for metric in metrics {
                match shown.get(metric.name) {
                    None if !is_excused(service, metric.name) => missing.push(format!("{service}: {}", metric.name)),
                    _ => {}
                }
            }
        }
        missing.sort();
        missing.dedup();
        if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
    })
    .await;
    let exporter = stack.page(NATS_EXPORTER).await;
    for name in registry::stock_names() {
        assert!(families(&exporter).contains_key(name), "a dashboard shows {name}, the exporter does not");
    }
    every_series_is_declared(&stack, &declared).await;
    the_api_says_what_the_metrics_say(&stack).await;
}

/// Labels and types too: nothing is recorded apart from the declarations.
async fn every_series_is_declared(stack: &Stack, declared: &[(&str, Vec<agentforge_metrics::Metric>)]) {
    for (service, metrics) in declared.iter().filter(|(service, _)| *service != NATS_EXPORTER) {
        let page = stack.page(service).await;
        for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let series = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if name.starts_with("process_") {
                continue;
            }
            let of = |m: &&agentforge_metrics::Metric| {
                name.strip_prefix(m.name).is_some_and(|end| matches!(end, "" | "_bucket" | "_sum" | "_count"))
            };
            let metric = metrics.iter().find(of).unwrap_or_else(|| panic!("{service}: {name} is not declared"));
            for pair in labels.trim_end_matches('}').split("\",").filter(|pair| pair.contains('=')) {
                let label = pair.split('=').next().unwrap();
                let place = metric.labels.iter().position(|declared| *declared == label);
                assert!(place.is_some() || label == "le", "{service}: {series}: {label} is not declared");
                let known = place.and_then(|place| metric.values.get(place)).copied().unwrap_or_default();
                let value = pair.split('"').nth(1).unwrap();
                assert!(known.is_empty() || known.contains(&value), "{service}: {series}: {value} is not declared");
            }
        }
    }
}

async fn the_api_says_what_the_metrics_say(stack: &Stack) {
    eventually(DEADLINE, "API and metrics agree on the objectives", async || {
        let list = stack.get("/v1/slo").await;
        let page = stack.page(ORCHESTRATOR).await;
        for slo in list["slos"].as_array().ok_or(list.to_string())? {
            let labels = [
                format!("service=\"{}\"", slo["service"].as_str().unwrap()),
                format!("slo=\"{}\"", slo["slo"].as_str().unwrap()),
            ];
            let labels = labels.each_ref().map(String::as_str);
            let gauge = |name: &str| sum(&page, name, &labels);
            let unit = slo["unit"].as_str().unwrap();
            let status = match slo["status"].as_str().unwrap() {
                "healthy" => 1.0,
                "at_risk" => 0.0,
                "breached" => -1.0,
                other => return Err(format!("{other}: {slo}")),
            };
            let said = [Value::from(status), slo["budget"].clone(), slo["bad"].clone()].map(|v| v.as_f64().unwrap());
            let shown = [
                gauge("agentforge_slo_status"),
                gauge(&format!("agentforge_error_budget_{unit}")),
                gauge(&format!("agentforge_error_budget_used_{unit}")),
            ];
            if said.iter().zip(&shown).any(|(a, b)| (a - b).abs() > 1e-6) {
                return Err(format!("{slo}: {shown:?}"));
            }
        }
        Ok(())
    })
    .await;
}

#[test]
fn the_page_of_metrics_is_made_of_the_declarations() {
    let out = Command::new(cargo_bin("agentforge")).args(["metrics-catalogue", "--markdown"]).output().unwrap();
    let page = String::from_utf8(out.stdout).unwrap();
    for (service, metrics) in registry::declared() {
        for metric in metrics {
            assert!(
                page.contains(&format!("| `{}` |", metric.name)),
                "docs/METRICS.md would lack {} of {service}",
                metric.name
            );
        }
    }
    let written = std::fs::read_to_string(crate::files::root().join("docs/METRICS.md")).unwrap();
    assert!(written == page, "docs/METRICS.md is out of date: run scripts/generate-docs and commit what it wrote");
}

//! The recording rules on the exporter's series: promtool's own tests, and a real Prometheus with real jobs.

use crate::support::{Exporter, jetstream, make_consumer, take};
use agentforge_harness::{NatsOptions, NatsServer, Prometheus, eventually, promtool, require};
use async_nats::jetstream::stream::{self, RetentionPolicy};
use std::{path::PathBuf, time::Duration};

/// Scraped and evaluated each second.
const SEEN: Duration = Duration::from_secs(30);

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../monitoring/alerts")).canonicalize().unwrap()
}

fn files(end: &str) -> Vec<String> {
    let all = std::fs::read_dir(folder()).unwrap().flatten().map(|entry| entry.path().to_string_lossy().into_owned());
    let found: Vec<String> = all.filter(|path| path.ends_with(end)).collect();
    assert!(!found.is_empty(), "no {end} in {}", folder().display());
    found
}

#[test]
fn promtool_is_content_with_all_rules_and_their_tests() {
    let Some(()) = require("prometheus") else { return };
    for file in files(".rules.yml") {
        let (is_content, said) = promtool(&["check", "rules", &file], b"");
        assert!(is_content, "{said}");
    }
    for file in files(".test.yml") {
        let (is_content, said) = promtool(&["test", "rules", &file], b"");
        assert!(is_content, "{said}");
    }
}

#[tokio::test]
async fn prometheus_records_the_true_backlog_and_when_it_will_be_gone() {
    let (Some(()), Some(())) = (require("nats-server"), require("prometheus")) else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let js = jetstream(&server.url()).await;
    // The stream and the consumers that the product makes.
    let config = stream::Config {
        name: "swarm_jobs".into(),
        subjects: vec!["swarm.jobs.>".into()],
        retention: RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let jobs = js.create_stream(config).await.unwrap();
    let consumer = async |name: &str, filter: &str| {
        let config = async_nats::jetstream::consumer::pull::Config {
            durable_name: Some(name.into()),
            filter_subject: filter.into(),
            ..Default::default()
        };
        jobs.create_consumer(config).await.unwrap()
    };
    let workers = consumer("worker-staging", "swarm.jobs.staging.default").await;
    consumer("worker-staging_gpu", "swarm.jobs.staging.gpu").await;
    let submit = async |queue: &str, count: usize| {
        crate::support::publish(&js, &format!("swarm.jobs.staging.{queue}"), count).await;
    };
    // Another stream's backlog is not a backlog of jobs.
    make_consumer(&crate::support::make_stream(&js, "other", 1).await, "worker-staging").await;
    crate::support::publish(&js, "other.a", 50).await;

    let exporter = Exporter::start(&["-varz", "-jsz=streams,consumers,accounts", &server.monitor_url()]).await;
    let target = exporter.url.trim_start_matches("http://").trim_end_matches("/metrics");
    let rules: String = files(".rules.yml").iter().map(|file| format!("  - {file}\n")).collect();
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files:\n{rules}\
         scrape_configs:\n  - job_name: nats\n    static_configs: [{{targets: ['{target}']}}]\n"
    ))
    .await;
    let read = async |name: &str, queue: &str| {
        let series = prometheus.query(&format!("{name}{{mission=\"staging\",queue=\"{queue}\"}}")).await.unwrap();
        assert!(series.len() < 2, "{series:?}");
        series.first().map(|one| one.value)
    };
    let becomes = async |name: &str, queue: &str, wanted: f64| {
        eventually(SEEN, &format!("{name} of {queue} is {wanted}"), || async {
            let seen = read(name, queue).await;
            if seen == Some(wanted) { Ok(()) } else { Err(seen) }
        })
        .await;
    };
    becomes("jetstream_backlog", "default", 0.0).await;
    becomes("jetstream_backlog_drain_estimate_minutes", "default", 0.0).await;

    submit("default", 400).await;
    submit("gpu", 7).await;
    becomes("jetstream_backlog", "default", 400.0).await;
    becomes("jetstream_backlog", "gpu", 7.0).await;
    becomes("jetstream_ack_pending", "default", 0.0).await;
    becomes("jetstream_backlog_drain_estimate_minutes", "default", f64::INFINITY).await;

    // 30 are being worked on, of which 20 are done.
    take(&workers, 30, 20).await;
    becomes("jetstream_backlog", "default", 370.0).await;
    becomes("jetstream_ack_pending", "default", 10.0).await;

    // Drained step by step until the ten minutes behind show a fall, then the estimate is what it says.
    let (backlog, rate, minutes) = eventually(Duration::from_secs(60), "the backlog is seen to drain", || async {
        take(&workers, 10, 10).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let rate = read("jetstream_backlog_drain_rate", "default").await.filter(|rate| *rate > 0.5)?;
        let backlog = read("jetstream_backlog", "default").await?;
        let minutes = read("jetstream_backlog_drain_estimate_minutes", "default").await.filter(|m| m.is_finite())?;
        Some((backlog, rate, minutes))
    })
    .await;
    // The three are read one after the other, while it drains.
    let expected = backlog / rate / 60.0;
    assert!((minutes - expected).abs() < expected * 0.5 + 0.05, "{minutes} min for {backlog} jobs at {rate}/s");
    let left = usize::try_from(workers.get_info().await.unwrap().num_pending).unwrap();
    take(&workers, left, left).await;
    becomes("jetstream_backlog", "default", 0.0).await;
    becomes("jetstream_backlog_drain_estimate_minutes", "default", 0.0).await;
    becomes("jetstream_backlog", "gpu", 7.0).await;

    let up = prometheus.query("up{job=\"nats\"}").await.unwrap();
    assert_eq!(up.iter().map(|one| one.value).collect::<Vec<_>>(), [1.0]);
    // What a dashboard for the known exporter asks.
    for expression in ["gnatsd_varz_connections", "sum(jetstream_consumer_num_pending{stream_name=\"swarm_jobs\"})"] {
        assert_eq!(prometheus.query(expression).await.unwrap().len(), 1, "{expression}");
    }
}

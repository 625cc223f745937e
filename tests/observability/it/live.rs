//! Alerts from end to end: real failures of the real system, the shipped rules with shorter times, a real Prometheus, a
//! real Alertmanager with the shipped routes, the real broadcaster, and the receivers.
//!
//! `scripts/test-alerts.sh` runs this for a person to watch: each step is printed as it happens.

use crate::files;
use crate::stack::{Options, Stack};
use agentforge_harness::{Alertmanager, Postgres, PostgresOptions, Prometheus, Signal, cargo_bin, eventually, require};
use async_nats::jetstream::{self, AckKind};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Ten minutes become ten seconds.
const SCALE: &str = "60";
/// For an alert to fire or to be over: its shortened time, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);
const TOKEN: &str = "token-of-the-alertmanager";

/// The receivers: keeps every body that is posted, with its path.
struct Sink {
    base: String,
    told: Arc<Mutex<Vec<(String, String)>>>,
    server: JoinHandle<()>,
}

impl Sink {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let told = Arc::new(Mutex::new(Vec::new()));
        let keeper = told.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, keeper.clone()));
            }
        });
        Self { base, told, server }
    }

    fn bodies(&self, path: &str) -> Vec<String> {
        self.told.lock().unwrap().iter().filter(|(p, _)| p == path).map(|(_, body)| body.clone()).collect()
    }

    /// Waits until something posted to `path` holds all of `parts`.
    async fn hears(&self, path: &str, parts: &[&str]) {
        eventually(PATIENCE, &format!("{path} is told of {parts:?}"), async || {
            let bodies = self.bodies(path);
            let found = bodies.iter().any(|body| parts.iter().all(|part| body.contains(part)));
            if found { Ok(()) } else { Err(format!("{} bodies; the last: {:?}", bodies.len(), bodies.last())) }
        })
        .await;
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(mut stream: tokio::net::TcpStream, told: Arc<Mutex<Vec<(String, String)>>>) {
    let (mut request, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    let (path, body) = loop {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
            _ => return,
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or_default() {
            break (head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned());
        }
    };
    told.lock().unwrap().push((path, body));
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let _ = stream.write_all(answer).await;
}

/// The shipped configuration, with shorter waits, its secrets in files, and the world outside at the sink.
fn alertmanager_configuration(dir: &TempDir, sink: &Sink, broadcaster: &str) -> String {
    let shipped = files::root().join("monitoring/alertmanager/alertmanager.yml");
    let mut document = files::yaml(&shipped);
    let secret = |name: &str, value: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, value).unwrap();
        path.display().to_string()
    };
    document["global"]["slack_api_url_file"] = secret("slack-url", &format!("{}/slack", sink.base)).into();
    document["global"]["pagerduty_url"] = format!("{}/pagerduty", sink.base).into();
    for (key, value) in [("group_wait", "1s"), ("group_interval", "2s")] {
        document["route"][key] = value.into();
    }
    for receiver in document["receivers"].as_array_mut().unwrap() {
        match receiver["name"].as_str().unwrap() {
            "pagerduty" => receiver["pagerduty_configs"][0]["routing_key_file"] = secret("pagerduty-key", "key").into(),
            "broadcaster" => {
                receiver["webhook_configs"][0]["url"] = format!("{broadcaster}/v1/alerts").into();
                receiver["webhook_configs"][0]["http_config"]["authorization"]["credentials_file"] =
                    secret("broadcaster-alerts-token", TOKEN).into();
            }
            _ => {}
        }
    }
    document.to_string()
}

fn prometheus_configuration(dir: &TempDir, stack: &Stack, alertmanager: &str) -> String {
    let rules = dir.path().join("rules");
    let render = ["rules", "render", "--scale", SCALE, "--out", rules.to_str().unwrap()];
    let out = Command::new(cargo_bin("agentforge")).args(render).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let scrape = |(service, url): (&str, String)| {
        let target = url.strip_prefix("http://").unwrap().trim_end_matches("/metrics").to_owned();
        json!({"job_name": service, "static_configs": [{"targets": [target]}]})
    };
    let jobs: Vec<Value> = stack.pages().into_iter().map(scrape).collect();
    json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s",
            "external_labels": {"repository": "https://git.example/agentforge"}},
        "rule_files": [format!("{}/*.rules.yml", rules.display())],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": jobs,
    })
    .to_string()
}

/// Everything that is watched, and its output so far.
struct Watch {
    prometheus: Prometheus,
    begun: Instant,
    fired: BTreeSet<String>,
}

impl Watch {
    fn say(&self, what: &str) {
        println!("{:>6.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    async fn fires(&mut self, alerts: &[&str]) {
        for alert in alerts {
            let series = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
            eventually(PATIENCE, &format!("{alert} fires"), async || match self.prometheus.query(&series).await {
                Ok(found) if !found.is_empty() => Ok(()),
                other => Err(format!("{other:?}; all: {:?}", self.prometheus.query("ALERTS").await)),
            })
            .await;
            self.fired.insert((*alert).to_owned());
            self.say(&format!("{alert} fires"));
        }
    }

    async fn are_over(&self) {
        // The slow pairs look back for days, which are many minutes even so: promtool tries those.
        // Objectives are judged over hours.
        let firing = "ALERTS{alertstate=\"firing\", alertname!~\".*BurnSlow|SLOAtRisk|SLOBreached\"}";
        let said = Mutex::new(String::new());
        eventually(PATIENCE, "every alert is over", async || {
            let found = self.prometheus.query(firing).await?;
            let names: BTreeSet<&str> = found.iter().map(|series| series.labels["alertname"].as_str()).collect();
            let rest = names.into_iter().collect::<Vec<_>>().join(", ");
            if *said.lock().unwrap() != rest && !rest.is_empty() {
                self.say(&format!("still firing: {rest}"));
                said.lock().unwrap().clone_from(&rest);
            }
            if rest.is_empty() { Ok(()) } else { Err(rest) }
        })
        .await;
        self.say("every alert is over");
    }
}

/// A worker as the bus knows one: it beats, with a certificate that ends in three days.
fn beats(nats: async_nats::Client, agent: String, site: &'static str, certificate: Option<i64>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
            let beat = json!({
                "agent": agent, "mission": "dev", "site": site, "host": "h", "version": "1", "tools": [], "queues": [],
                "capacity": 1, "inflight": 0, "interval_ms": 500, "leaving": false, "running": [],
                "certificate_expires_at": certificate.map(|s| now + s * 1_000_000),
            });
            let _ = nats.publish("swarm.agents.dev.heartbeat", beat.to_string().into()).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}

/// Takes jobs from the workers' consumer and gives each back at once, until it is aborted.
fn give_back(nats: async_nats::Client) -> JoinHandle<()> {
    tokio::spawn(async move {
        use futures_util::StreamExt;
        let js = jetstream::new(nats);
        let consumer: jetstream::consumer::PullConsumer =
            js.get_consumer_from_stream("worker-dev", "swarm_jobs").await.expect("the workers' consumer is there");
        loop {
            let Ok(mut batch) = consumer.fetch().max_messages(20).messages().await else { continue };
            while let Some(Ok(message)) = batch.next().await {
                let _ = message.ack_with(AckKind::Nak(None)).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}

fn endpoints(sink: &Sink) -> String {
    ["teams", "slack"].map(|format| {
        format!(
            "[[endpoint]]\nname = \"{format}\"\nurl = \"{}/via-{format}\"\nformat = \"{format}\"\nsubjects = [\"agentforge.events.alert.>\"]\n\n",
            sink.base
        )
    })
    .concat()
}

#[tokio::test]
async fn failures_page_the_right_people_and_are_over_when_they_are_mended() {
    let servers = ["nats-server", "postgres", "prometheus", "alertmanager"];
    if servers.into_iter().any(|server| require(server).is_none()) {
        return;
    }
    let (dir, sink) = (TempDir::new().unwrap(), Sink::start().await);
    std::fs::write(dir.path().join("endpoints.toml"), endpoints(&sink)).unwrap();
    let mut postgres = Postgres::own(PostgresOptions::default()).await;
    let database = postgres.database("alerts").await;
    let options = Options::default()
        .set("orchestrator", "DATABASE_URL", database)
        .set("worker", "WORKER_CONCURRENCY", "16")
        .set("worker", "HEARTBEAT_INTERVAL", "1s")
        .set("broadcaster", "BROADCASTER_ENDPOINTS_FILE", dir.path().join("endpoints.toml").display().to_string())
        .set("broadcaster", "BROADCASTER_ALERTS_TOKEN", TOKEN)
        .set("broadcaster", "BROADCASTER_SUBJECTS", "agentforge.events.alert.>")
        .set("broadcaster", "BROADCASTER_RETRY_SCHEDULE", "1s,1s,2s,2s,5s,5s,10s")
        .set("broadcaster", "EGRESS_ALLOW", "127.0.0.1/32");
    let mut stack = Stack::start(options).await;
    let alertmanager = Alertmanager::start(&alertmanager_configuration(&dir, &sink, &stack.http("broadcaster"))).await;
    let prometheus = Prometheus::start(&prometheus_configuration(&dir, &stack, &alertmanager.address())).await;
    let mut watch = Watch { prometheus, begun: Instant::now(), fired: BTreeSet::new() };
    watch.say("the system runs, Prometheus scrapes it");
    let nats = async_nats::connect(stack.nats.url()).await.unwrap();

    // For the whole time: a certificate that ends in three days.
    let certificate = beats(nats.clone(), "north-1".into(), "north", Some(3 * 86_400));

    watch.say("4,200 jobs and no worker that takes them");
    stack.proc("worker").pause();
    let jobs: Vec<Value> =
        (0..600).map(|n| json!({"tool": "sleep", "args": {"ms": 20}, "labels": {"n": n.to_string()}})).collect();
    for _ in 0..7 {
        let (status, answer) = stack.post("/v1/jobs:batch", &[], &json!(jobs)).await;
        assert_eq!((status, &answer["accepted"]), (200, &600.into()), "{}", answer["items"][0]);
    }
    let backlog = [
        "SustainedNATSBacklogWarning",
        "SustainedNATSBacklogCritical",
        "NATSBacklogDrainSLOAtRisk",
        "NATSBacklogDrainSLOBurnFast",
    ];
    watch.fires(&backlog).await;
    sink.hears("/pagerduty", &["SustainedNATSBacklogCritical", "trigger", "docs/runbooks/backlog.md"]).await;
    for way in ["/via-teams", "/via-slack"] {
        sink.hears(way, &["SustainedNATSBacklogCritical"]).await;
    }
    watch.say("the pager, Teams and Slack know of the backlog");
    // Whether the warning was sent before depends on which of the two a scrape saw first.
    eventually(PATIENCE, "the critical alert silences its warning", async || {
        let alerts = alertmanager.alerts().await?;
        let warning = alerts.iter().find(|a| a["labels"]["alertname"] == "SustainedNATSBacklogWarning");
        let is_silenced =
            warning.is_some_and(|a| a["status"]["inhibitedBy"].as_array().is_some_and(|by| !by.is_empty()));
        if is_silenced { Ok(()) } else { Err(format!("{warning:?}")) }
    })
    .await;

    watch.say("the worker is back; six others vanish, deliveries are given back, jobs die");
    stack.proc("worker").resume();
    let others: Vec<_> = (0..6).map(|n| beats(nats.clone(), format!("lost-{n}"), "south", None)).collect();
    let giving_back = give_back(nats.clone());
    eventually(PATIENCE, "the six have been heard of", async || {
        let agents = stack.get("/v1/agents?limit=100").await;
        let known = agents["agents"].as_array().ok_or_else(|| agents.to_string())?;
        let lost = known.iter().filter(|agent| agent["site"] == "south").count();
        if lost == 6 { Ok(()) } else { Err(format!("{lost} in {agents}")) }
    })
    .await;
    others.iter().for_each(JoinHandle::abort);
    let dying = {
        // So many that deliveries are given back for as long as it takes, also when the backlog is gone.
        let jobs = vec![json!({"tool": "fail", "args": {}, "max_attempts": 1}); 10];
        let (base, jobs) = (stack.http("orchestrator"), json!(jobs));
        tokio::spawn(async move {
            loop {
                let _ = agentforge_harness::http_post(&format!("{base}/v1/jobs:batch"), &jobs.to_string()).await;
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        })
    };
    watch.fires(&["NATSConsumerRedeliveriesRateHigh", "DeadLettersGrowing", "AgentsOffline"]).await;
    sink.hears("/slack", &["DeadLettersGrowing"]).await;
    sink.hears("/pagerduty", &["AgentsOffline", "trigger"]).await;
    giving_back.abort();
    dying.abort();

    watch.fires(&["CertificateExpiringSoon"]).await;
    certificate.abort();

    watch.say("the database is killed, and callers go on asking");
    postgres.kill9();
    let asking = {
        let url = format!("{}/v1/jobs?limit=1", stack.http("orchestrator"));
        tokio::spawn(async move {
            loop {
                // Side by side: each waits for the database before it is refused.
                let url = url.clone();
                tokio::spawn(async move { drop(agentforge_harness::http_get(&url, &[]).await) });
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    watch.fires(&["DatabaseConnectionErrors", "HighErrorRate"]).await;
    sink.hears("/pagerduty", &["DatabaseConnectionErrors", "trigger"]).await;
    asking.abort();
    postgres.restart().await;

    watch.say("NATS is killed");
    stack.nats.kill9();
    watch.fires(&["NATSDown", "NATSJetStreamMetricsMissing", "HeartbeatFailures"]).await;
    // The broadcaster reads from NATS: alerts about that have another way.
    sink.hears("/pagerduty", &["NATSDown", "trigger"]).await;
    stack.nats.restart().await;

    watch.say("NATS is back; the exporter is killed");
    stack.proc("nats-exporter").kill9();
    watch.fires(&["NATSExporterDown"]).await;
    sink.hears("/pagerduty", &["NATSExporterDown", "trigger"]).await;
    stack.bring_up("nats-exporter").await;
    watch.say("the exporter is back, the lost workers say good-bye");

    // The lost workers say good-bye, as those do that are drained.
    for n in 0..6 {
        let bye = json!({
            "agent": format!("lost-{n}"), "mission": "dev", "site": "south", "host": "h", "version": "1", "tools": [],
            "queues": [], "capacity": 1, "inflight": 0, "interval_ms": 500, "leaving": true, "running": [],
        });
        eventually(PATIENCE, "the good-bye is taken", async || {
            nats.request("swarm.agents.dev.heartbeat", bye.to_string().into()).await.map(drop)
        })
        .await;
    }
    watch.are_over().await;
    for alert in ["SustainedNATSBacklogCritical", "AgentsOffline", "DatabaseConnectionErrors", "NATSExporterDown"] {
        sink.hears("/pagerduty", &[alert, "resolve"]).await;
    }
    for way in ["/via-teams", "/via-slack"] {
        for alert in ["DeadLettersGrowing", "HighErrorRate", "NATSExporterDown"] {
            sink.hears(way, &[alert, "esolved"]).await;
        }
    }
    watch.say(&format!("all {} alerts fired, were told and are over", watch.fired.len()));
    stack.proc("worker").signal(Signal::TERM);
}

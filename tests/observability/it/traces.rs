//! One trace from a submission to its webhook, and work that continues without a collector.

use crate::collector::{Collector, Span};
use crate::stack::{DEADLINE, Options, Stack, all_but, services};
use agentforge_harness::{Proc, cargo_bin, eventually, http_post_with, require};
use serde_json::{Value, json};
use std::process::Command;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// The services that a job and its webhook pass.
const TRACED: [&str; 3] = ["orchestrator", "worker", "broadcaster"];
/// More requests than a test causes.
const HEADS_MAX: usize = 4096;
const REQUEST: &str = "ticket-4711/2";

/// A receiver of webhooks: returns the head of each request, and answers 204.
pub async fn webhooks() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (heads, heard) = mpsc::channel(HEADS_MAX);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                        _ => return,
                    }
                }
                let _ = heads.send(String::from_utf8_lossy(&request).into_owned()).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            });
        }
    });
    (url, heard)
}

fn traced(endpoint: &str) -> Options {
    let mut options = Options::default()
        .all("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .all("OTEL_BSP_SCHEDULE_DELAY", "200")
        .all("LOG_LEVEL", "info,agentforge_orchestrator=debug,agentforge_worker=debug,agentforge_broadcaster=debug");
    options.without = all_but(&TRACED);
    options
}

/// The span of a service with this name, once it has come.
async fn span(collector: &Collector, trace: &str, service: &str, name: &str) -> Span {
    eventually(DEADLINE, &format!("the collector has {name} of {service}"), async || {
        let spans = collector.of(trace);
        spans.iter().find(|s| s.service == service && s.name == name).cloned().ok_or(format!("{spans:#?}"))
    })
    .await
}

/// The way of a job below the span of its submission, to the commit of its result: each span, and below which one it is.
/// Gives the span of its run.
async fn leads_to_a_commit(collector: &Collector, trace: &str, submission: &Span) -> Span {
    let run = span(collector, trace, "worker", "process swarm.jobs").await;
    // A publish that found no stream yet was tried again: each try is a span, and the job hangs below the one that was stored.
    eventually(DEADLINE, "the job hangs below a publish, and each publish below the submission", async || {
        let spans = collector.of(trace);
        let publishes: Vec<_> =
            spans.iter().filter(|s| s.service == "orchestrator" && s.name == "publish swarm.jobs").collect();
        let all_below = publishes.iter().all(|s| s.parent == submission.id);
        let stored = publishes.iter().any(|s| s.id == run.parent);
        if all_below && stored { Ok(()) } else { Err(format!("{run:?} in {spans:#?}")) }
    })
    .await;
    let tool = span(collector, trace, "worker", "tool echo").await;
    assert_eq!(tool.parent, run.id);
    let commit = span(collector, trace, "orchestrator", "process swarm.results").await;
    assert_eq!(commit.parent, run.id);
    run
}

/// As [`leads_to_a_commit`], and further to the webhook.
async fn leads_on(collector: &Collector, trace: &str, submission: &Span) {
    let run = leads_to_a_commit(collector, trace, submission).await;
    let webhook = eventually(DEADLINE, "the collector has the webhook", async || {
        let spans = collector.of(trace);
        let posts = spans.iter().find(|s| s.service == "broadcaster" && s.name.starts_with("POST "));
        posts.cloned().ok_or(format!("{spans:#?}"))
    })
    .await;
    speaks_the_conventions(&collector.of(trace), &run, &webhook);
    // It hangs below the publish of the job's event, which is sent in a batch of another process.
    eventually(DEADLINE, "the webhook hangs below a span of the trace", async || {
        let spans = collector.of(trace);
        if spans.iter().any(|s| s.id == webhook.parent) { Ok(()) } else { Err(format!("{webhook:?} in {spans:#?}")) }
    })
    .await;
}

/// What maps of services and views of messaging are built from has the names that OpenTelemetry gave it.
fn speaks_the_conventions(spans: &[Span], run: &Span, webhook: &Span) {
    let has = |span: &Span, expected: &[(&str, &str)]| {
        for (key, value) in expected {
            assert_eq!(span.attributes.get(*key).map(String::as_str), Some(*value), "{key} of {span:#?}");
        }
    };
    has(
        run,
        &[
            ("messaging.system", "nats"),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", "swarm.jobs.dev.default"),
            ("messaging.consumer.group.name", "worker-dev"),
        ],
    );
    assert!(run.attributes["messaging.message.id"].ends_with(":1"), "{run:#?}");
    let publish = spans.iter().find(|s| s.name == "publish swarm.jobs").expect("it is there");
    has(publish, &[("messaging.operation.type", "send"), ("messaging.destination.name", "swarm.jobs.dev.default")]);
    has(webhook, &[("http.request.method", "POST"), ("http.response.status_code", "204")]);
    let requests = spans.iter().filter(|s| s.name == "POST /v1/jobs");
    for request in requests {
        let expected =
            [("http.request.method", "POST"), ("http.route", "/v1/jobs"), ("http.response.status_code", "202")];
        has(request, &expected);
    }
}

#[tokio::test]
async fn one_trace_leads_from_a_submission_to_its_webhook() {
    let Some(()) = require("nats-server") else { return };
    let collector = Collector::start().await;
    let (url, mut heard) = webhooks().await;
    let options = traced(&collector.endpoint)
        .set("broadcaster", "WEBHOOK_URL", url)
        .set("broadcaster", "EGRESS_ALLOW", "127.0.0.1/32")
        .set("broadcaster", "BROADCASTER_SUBJECTS", "agentforge.events.job.dev.succeeded");
    let stack = Stack::start(options).await;
    let headers = [format!("traceparent: 00-{TRACE}-{CALLER}-01"), format!("X-Request-ID: {REQUEST}")];
    let headers = headers.each_ref().map(String::as_str);
    let (status, job) = stack.post("/v1/jobs", &headers, &json!({"tool": "echo", "args": {"n": 1}})).await;
    assert_eq!(status, 202, "{job}");
    assert_eq!(job["trace_id"], TRACE);

    let request = span(&collector, TRACE, "orchestrator", "POST /v1/jobs").await;
    assert_eq!(request.parent, CALLER, "the caller's own span is above all");
    leads_on(&collector, TRACE, &request).await;

    let head = tokio::time::timeout(DEADLINE, heard.recv()).await.expect("the webhook is sent").unwrap();
    let traceparent =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("traceparent: ").map(str::to_owned));
    assert!(traceparent.as_ref().is_some_and(|t| t.starts_with(&format!("00-{TRACE}-"))), "{head}");
    assert!(head.lines().any(|line| line.eq_ignore_ascii_case(&format!("x-request-id: {REQUEST}"))), "{head}");

    // The log of each service that had to do with it has the trace, on lines that are JSON.
    for service in TRACED {
        eventually(DEADLINE, &format!("the log of {service} names the trace"), async || {
            let lines = stack.log(service);
            let of_trace: Vec<&Value> = lines.iter().filter(|line| line["trace_id"] == TRACE).collect();
            let whole = |line: &&Value| {
                line["span_id"].is_string() && line["service"] == service && line["request_id"] == REQUEST
            };
            if !of_trace.is_empty() && of_trace.iter().all(whole) { Ok(()) } else { Err(format!("{of_trace:?}")) }
        })
        .await;
    }
}

/// Submits with the command and gives what it said on stderr.
async fn submit(server: String, settings: &[(&str, &str)]) -> String {
    let mut command = Command::new(cargo_bin("agentforge"));
    command.args(["--server", &server, "job", "submit", "echo", "{}", "--wait"]);
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").envs(settings.iter().copied());
    let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    said
}

/// The trace of the job that was submitted last.
async fn latest_trace(stack: &Stack) -> String {
    let jobs = stack.get("/v1/jobs?limit=1").await;
    jobs["jobs"][0]["trace_id"].as_str().unwrap_or_else(|| panic!("{jobs}")).to_owned()
}

#[tokio::test]
async fn a_submission_by_the_command_is_one_trace_from_the_command_to_the_webhook() {
    let Some(()) = require("nats-server") else { return };
    let collector = Collector::start().await;
    let (url, _heard) = webhooks().await;
    let options = traced(&collector.endpoint)
        .set("broadcaster", "WEBHOOK_URL", url)
        .set("broadcaster", "EGRESS_ALLOW", "127.0.0.1/32")
        .set("broadcaster", "BROADCASTER_SUBJECTS", "agentforge.events.job.dev.succeeded");
    let stack = Stack::start(options).await;
    submit(stack.grpc(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)]).await;
    let trace = latest_trace(&stack).await;
    // The command is over, so its span has been sent.
    let command = span(&collector, &trace, "cli", "agentforge job submit").await;
    assert_eq!(command.parent, "", "nothing is above it");
    let call = submission(&collector, &trace).await;
    assert_eq!((call.service.as_str(), &call.parent), ("orchestrator", &command.id));
    leads_on(&collector, &trace, &call).await;
}

/// The orchestrator's span of a call that submitted.
async fn submission(collector: &Collector, trace: &str) -> Span {
    eventually(DEADLINE, "the call is in the trace", async || {
        let spans = collector.of(trace);
        spans.iter().find(|s| s.name.contains("SubmitJob")).cloned().ok_or(format!("{spans:#?}"))
    })
    .await
}

#[tokio::test]
async fn a_command_without_a_collector_begins_a_trace_and_one_that_is_silent_holds_it_up_no_longer_than_a_moment() {
    let Some(()) = require("nats-server") else { return };
    let collector = Collector::start().await;
    let mut options = traced(&collector.endpoint);
    options.without.push("broadcaster");
    let stack = Stack::start(options).await;
    submit(stack.grpc(), &[]).await;
    let trace = latest_trace(&stack).await;
    let call = submission(&collector, &trace).await;
    assert!(!call.parent.is_empty(), "the command's span is above it, although nobody has it: {call:?}");

    // Takes the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let said = submit(stack.grpc(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
    assert!(said.contains("the trace was not sent"), "{said}");
    assert_ne!(latest_trace(&stack).await, trace);

    // Turned off, the orchestrator begins the trace.
    submit(stack.grpc(), &[("OTEL_SDK_DISABLED", "true")]).await;
    let call = submission(&collector, &latest_trace(&stack).await).await;
    assert_eq!(call.parent, "", "{call:?}");
}

/// Nothing is exported, so that there is no span; the trace has a name all the same.
#[tokio::test]
async fn without_a_collector_job_and_log_lines_name_one_trace() {
    let Some(()) = require("nats-server") else { return };
    let mut options = Options::default().all("LOG_LEVEL", "info,agentforge_orchestrator=debug,agentforge_worker=debug");
    options.without = all_but(&["orchestrator", "worker"]);
    let stack = Stack::start(options).await;
    let mut traces = Vec::new();
    for _ in 0..2 {
        // The command names no trace then, and the call is the first of it.
        submit(stack.grpc(), &[("OTEL_SDK_DISABLED", "true")]).await;
        let trace = latest_trace(&stack).await;
        eventually(DEADLINE, "the log of the worker names the trace", async || {
            let lines = stack.log("worker");
            let of_trace: Vec<&Value> = lines.iter().filter(|line| line["trace_id"] == *trace).collect();
            let whole = |line: &&Value| line["job"].is_string() && line["tool"] == "echo";
            if !of_trace.is_empty() && of_trace.iter().all(whole) { Ok(()) } else { Err(format!("{of_trace:?}")) }
        })
        .await;
        traces.push(trace);
    }
    assert_ne!(traces[0], traces[1]);
}

/// Resident memory of a process, bytes.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

/// A collector that takes the connection and never answers is the worst: every batch waits for its timeout.
#[tokio::test]
async fn without_a_collector_that_answers_nothing_slows_or_fills_up() {
    let Some(()) = require("nats-server") else { return };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = traced(&format!("http://{}", silent.local_addr().unwrap()));
    options.without.push("broadcaster");
    options.common.insert("LOG_LEVEL".into(), "info".into());
    let mut stack = Stack::start(options).await;
    let rounds = if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { 100 } else { 4 };
    let job = json!({"tool": "echo", "args": {}}).to_string();
    let mut after_first = 0;
    for round in 0..rounds {
        // Far more spans than the queue of the exporter has places (2,048).
        for _ in 0..250 {
            stack.post("/v1/jobs", &[], &serde_json::from_str(&job).unwrap()).await;
        }
        eventually(DEADLINE, "all jobs have succeeded", async || {
            let open = stack.get("/v1/jobs?state=accepted&state=queued&state=running&limit=10").await;
            if open["jobs"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(open.to_string()) }
        })
        .await;
        if round == 1 {
            after_first = memory(stack.proc("worker").pid());
        }
    }
    let grown = memory(stack.proc("worker").pid()).saturating_sub(after_first);
    assert!(grown < 48 * 1024 * 1024, "the worker grew by {grown} bytes");
    for service in services().take(2) {
        assert_eq!(stack.proc(service).sigterm(DEADLINE).await, 0, "{service} ends well, and in time");
    }
}

#[tokio::test]
async fn services_that_share_a_process_are_separate_services_in_traces() {
    let Some(()) = require("nats-server") else { return };
    let collector = Collector::start().await;
    let dir = TempDir::new().unwrap();
    let ready_file = dir.path().join("ready.json");
    let dev = Proc::builder(cargo_bin("agentforge-stack"))
        .args(["dev", "--no-demo", "--port-base", "0", "--without", &all_but(&TRACED).join(",")])
        .args(["--data-dir", &dir.path().join("data").to_string_lossy()])
        .args(["--ready-file", &ready_file.to_string_lossy()])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "200")
        .start();
    let ready: Value = eventually(DEADLINE, "dev is ready", async || {
        let text = std::fs::read(&ready_file).map_err(|e| format!("{e}; {}", dev.full_log()))?;
        serde_json::from_slice(&text).map_err(|e| e.to_string())
    })
    .await;
    let pids = TRACED.map(|name| ready["services"][name]["pid"].clone());
    assert!(pids[0].is_u64() && pids.iter().all(|pid| *pid == pids[0]), "one process: {ready}");
    let jobs = format!("{}/v1/jobs", ready["services"]["orchestrator"]["http"].as_str().unwrap());
    let headers = [format!("traceparent: 00-{TRACE}-{CALLER}-01")];
    let headers = headers.each_ref().map(String::as_str);
    let (status, _) = http_post_with(&jobs, &headers, r#"{"tool": "echo", "args": {"n": 1}}"#).await.unwrap();
    assert_eq!(status, 202);
    let request = span(&collector, TRACE, "orchestrator", "POST /v1/jobs").await;
    assert_eq!(request.parent, CALLER);
    // A parent is found across services all the same.
    leads_to_a_commit(&collector, TRACE, &request).await;
    let spans = collector.of(TRACE);
    assert!(spans.iter().all(|span| span.service != "agentforge"), "{spans:#?}");
}

//! The console's intake board with everything around it: a client that knows only the todo routes, a schedule that posts,
//! an approval that becomes a job, and events that survive a console that is killed.

use agentforge_harness::{NatsOptions, NatsServer, Proc, cargo_bin, eventually, http_get, http_post, require};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// How long a process may take to be ready, or to do its work, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct System {
    nats: NatsServer,
    orchestrator: String,
    console: String,
    console_process: Proc,
    dir: TempDir,
    _others: [Proc; 2],
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn service(name: &str, nats: &NatsServer, envs: &[(&str, &str)]) -> Proc {
    let common =
        [("ENV", "dev"), ("NATS_URL", &nats.url()), ("HTTP_PORT", "0"), ("METRICS_PORT", "0"), ("LOG_FORMAT", "json")];
    Proc::builder(cargo_bin(name)).envs(common).envs(envs.iter().copied()).start()
}

impl System {
    async fn start() -> Self {
        let nats = NatsServer::start(NatsOptions::default()).await;
        let dir = TempDir::new().unwrap();
        let database = format!("sqlite://{}/agentforge.db", dir.path().display());
        let mut orchestrator =
            service("agentforge-orchestrator", &nats, &[("DATABASE_URL", &database), ("GRPC_PORT", "0")]);
        let ready = orchestrator.ready(PATIENCE).await;
        let http = ready["orchestrator"]["http"].as_str().unwrap().trim_end_matches('/').to_owned();
        let mut worker = service("agentforge-worker", &nats, &[("EGRESS_ALLOW", "127.0.0.1")]);
        worker.ready(PATIENCE).await;
        let (console_process, console) = console(&nats, dir.path(), &http).await;
        Self { nats, orchestrator: http, console, console_process, dir, _others: [orchestrator, worker] }
    }

    /// Runs a Python example to its end.
    async fn example(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new("python3");
        command.arg(root().join(program)).args(args).env_remove("AGENTFORGE_TOKEN");
        command.env("CONSOLE", &self.console).env("AGENTFORGE_HTTP", &self.orchestrator);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    async fn items(&self) -> Vec<Value> {
        let (status, body) = http_get(&format!("{}/api/intake", self.console), &[]).await.unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let page: Value = serde_json::from_slice(&body).unwrap();
        page["items"].as_array().unwrap().clone()
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, answer) = http_post(&format!("{}{path}", self.console), &body.to_string()).await.unwrap();
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// What the stream of events has about items, in its order.
    async fn told(&self) -> Vec<Value> {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        let stream = jetstream.get_stream("events").await.unwrap();
        let mut found = Vec::new();
        let mut next = 1;
        while let Ok(message) = stream.get_first_raw_message_by_subject("todos.events", next).await {
            next = message.sequence + 1;
            found.push(serde_json::from_slice(&message.payload).unwrap());
        }
        found
    }
}

async fn console(nats: &NatsServer, dir: &Path, orchestrator: &str) -> (Proc, String) {
    let data = dir.display().to_string();
    let mut console = service("agentforge-console", nats, &[("DATA_DIR", &data), ("ORCHESTRATOR_URL", orchestrator)]);
    let ready = console.ready(PATIENCE).await;
    let http = ready["console"]["http"].as_str().unwrap().trim_end_matches('/').to_owned();
    eventually(PATIENCE, "the console is ready", || async {
        match http_get(&format!("{http}/readyz"), &[]).await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    (console, http)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_a_schedule_and_an_approval_meet_on_the_board() {
    let Some(()) = require("nats-server") else { return };
    let mut system = System::start().await;
    let tried = system.example("examples/todo-client/todo.py", &["try"]).await;
    assert!(String::from_utf8_lossy(&tried.stdout).contains("every route answers"), "{tried:?}");

    // A turn of the schedule posts an item; the same call again makes no second schedule.
    let page = "https://wiki.example/random";
    let made = system.example("examples/todo-cron/create", &[&system.console, page]).await;
    let schedule = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    system.example("examples/todo-cron/create", &[&system.console, page]).await;
    let run = format!("{}/v1/schedules/{schedule}/run", system.orchestrator);
    let (status, answer) = http_post(&run, "{}").await.unwrap();
    assert!(status < 300, "{status} {}", String::from_utf8_lossy(&answer));
    let item = eventually(PATIENCE, "the schedule's item is there", || async {
        system.items().await.into_iter().find(|item| item["text"] == format!("Read {page}")).ok_or("not yet")
    })
    .await;

    // It becomes a job of the orchestrator, which runs.
    let id = item["id"].as_str().unwrap().to_owned();
    let (status, approved) = system.post(&format!("/api/intake/{id}/approve"), json!({})).await;
    assert_eq!((status, &approved["status"]), (200, &json!("approved")), "{approved}");
    let job = format!("{}/v1/jobs/{}", system.orchestrator, approved["job_id"].as_str().unwrap());
    let job = eventually(PATIENCE, "the job succeeds", || async {
        let (_, body) = http_get(&job, &[]).await.map_err(|e| e.to_string())?;
        let job: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        if job["state"] == "succeeded" { Ok(job) } else { Err(job.to_string()) }
    })
    .await;
    assert_eq!(job["labels"]["intake"], id);
    assert_eq!(system.post(&format!("/api/intake/{id}/approve"), json!({})).await.0, 409);

    // The console is killed with changes that NATS has not seen; the next one sends them.
    system.nats.kill9();
    assert_eq!(system.post("/todos", json!({"text": "before the kill"})).await.0, 201);
    system.console_process.kill9();
    system.nats.restart().await;
    let dir = system.dir.path().to_owned();
    (system.console_process, system.console) = console(&system.nats, &dir, &system.orchestrator).await;
    let told = eventually(PATIENCE, "every change is told", || async {
        let told = system.told().await;
        let last = told.last().cloned().unwrap_or_default();
        if last["text"] == "before the kill" { Ok(told) } else { Err(last.to_string()) }
    })
    .await;
    let numbers: Vec<i64> = told.iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>(), "each change once and in order");
    for action in ["created", "updated", "deleted"] {
        assert!(told.iter().any(|event| event["action"] == action), "{action} in {told:?}");
    }

    // The sampler knows the orchestrator from its setting.
    let page = eventually(PATIENCE, "the orchestrator is sampled", || async {
        let (_, body) = http_get(&format!("{}/api/service-latencies", system.console), &[]).await.unwrap();
        let page: Value = serde_json::from_slice(&body).unwrap();
        if page["services"][0]["stats"]["ok"].as_u64() > Some(0) { Ok(page) } else { Err(page.to_string()) }
    })
    .await;
    assert_eq!(page["services"][0]["name"], "orchestrator");
}

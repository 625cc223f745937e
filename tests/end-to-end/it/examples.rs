//! The programs in `examples`, started as their page says, against the running services.

use agentforge_harness::{NatsOptions, NatsServer, Proc, cargo_bin, eventually, require};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// How long a process may take to be ready, or to do its work, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// NATS, an orchestrator and a worker.
struct System {
    nats: NatsServer,
    http: String,
    grpc: String,
    processes: [Proc; 2],
    _dir: TempDir,
}

impl System {
    /// With a worker that has the tools of `examples/tools-file`.
    async fn start() -> Self {
        Self::start_with("agentforge-worker", &[("WORKER_TOOLS_FILE", "examples/tools-file/tools.toml")]).await
    }

    async fn start_with(worker: &str, envs: &[(&str, &str)]) -> Self {
        let nats = NatsServer::start(NatsOptions::default()).await;
        let dir = TempDir::new().unwrap();
        let database = format!("sqlite://{}/agentforge.db", dir.path().display());
        let mut orchestrator =
            service("agentforge-orchestrator", &nats, &[("DATABASE_URL", &database), ("GRPC_PORT", "0")]);
        let ready = orchestrator.ready(PATIENCE).await;
        let address =
            |protocol: &str| ready["orchestrator"][protocol].as_str().unwrap().trim_end_matches('/').to_owned();
        let (http, grpc) = (address("http"), address("grpc"));
        let mut worker = service(worker, &nats, envs);
        worker.ready(PATIENCE).await;
        Self { nats, http, grpc, processes: [orchestrator, worker], _dir: dir }
    }

    /// Runs an example to its end.
    async fn run(&self, program: PathBuf, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(root()).env_remove("AGENTFORGE_TOKEN");
        command
            .env("AGENTFORGE_HTTP", &self.http)
            .env("AGENTFORGE_SERVER", &self.grpc)
            .env("NATS_URL", self.nats.url());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn submit_by_rest(&self, tool: &str, args: &str) -> Output {
        self.run("python3".into(), &["examples/rest-client/submit.py", tool, args]).await
    }
}

fn service(name: &str, nats: &NatsServer, envs: &[(&str, &str)]) -> Proc {
    let common =
        [("ENV", "dev"), ("NATS_URL", &nats.url()), ("HTTP_PORT", "0"), ("METRICS_PORT", "0"), ("LOG_FORMAT", "json")];
    // In the root of the repository, from which the tools file names its program.
    let command = ["-C".to_owned(), root().display().to_string(), cargo_bin(name).display().to_string()];
    Proc::builder("env").args(command).envs(common).envs(envs.iter().copied()).start()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_clients_and_the_tools_file_do_what_their_page_says() {
    let Some(()) = require("nats-server") else { return };
    let system = System::start().await;

    let echoed = system.submit_by_rest("echo", r#"{"hello": "world"}"#).await;
    assert!(echoed.status.success(), "{}", shown(&echoed));
    let result: Value = serde_json::from_slice(&echoed.stdout).unwrap();
    assert_eq!(result, serde_json::json!({"hello": "world"}));
    let failed = system.submit_by_rest("word-count", "{}").await;
    assert_eq!(failed.status.code(), Some(3), "{}", shown(&failed));
    let refused = system.submit_by_rest("echo", r#"["no object"]"#).await;
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(shown(&refused).contains("refused: invalid_argument"), "{}", shown(&refused));

    let counted = system.submit_by_rest("word-count", r#"{"text": "one two three"}"#).await;
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), r#"{"words": 3}"#, "{}", shown(&counted));

    let watched = system.run(cargo_bin("agentforge-example-grpc-client"), &["echo", r#"{"n":1}"#]).await;
    assert!(watched.status.success(), "{}", shown(&watched));
    let lines: Vec<String> = String::from_utf8_lossy(&watched.stdout).lines().map(str::to_owned).collect();
    let [.., last_state, result] = lines.as_slice() else { panic!("{}", shown(&watched)) };
    assert!(last_state.ends_with(" JOB_STATE_SUCCEEDED"), "{lines:?}");
    assert_eq!(result, r#"{"n":1}"#);

    // Four jobs that were accepted: their accepted and their final events. A second run begins after them.
    let events = system.run(cargo_bin("agentforge-example-event-subscriber"), &["8"]).await;
    assert!(events.status.success(), "{}", shown(&events));
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert_eq!(events.lines().count(), 8, "{events}");
    assert!(events.contains(" agentforge.job.succeeded ") && events.contains(" agentforge.job.failed "), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_worker_has_its_tool_and_all_others_and_drains() {
    let Some(()) = require("nats-server") else { return };
    // No tools file: the tool is compiled in.
    let mut system = System::start_with("agentforge-example-custom-tool", &[]).await;

    let counted = system.submit_by_rest("word-count", r#"{"text": "one two three"}"#).await;
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), r#"{"words": 3}"#, "{}", shown(&counted));
    let failed = system.submit_by_rest("word-count", "{}").await;
    assert_eq!(failed.status.code(), Some(3), "{}", shown(&failed));
    assert!(shown(&failed).contains("`text` is missing"), "{}", shown(&failed));
    let echoed = system.submit_by_rest("echo", r#"{"hello": "world"}"#).await;
    assert!(echoed.status.success(), "{}", shown(&echoed));

    let [_, worker] = &mut system.processes;
    assert_eq!(worker.sigterm(PATIENCE).await, 0, "{}", worker.full_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_receiver_takes_signed_events_once_and_refuses_others() {
    let Some(()) = require("nats-server") else { return };
    let system = System::start().await;
    let mut receiver = Proc::builder("python3")
        .args([root().join("examples/webhook-receiver/receiver.py").display().to_string(), "0".to_owned()])
        .env("WEBHOOK_SECRET", SECRET)
        .start();
    let url = eventually(PATIENCE, "the receiver listens", || async {
        let log = receiver.full_log();
        log.split_once("listening on ").map(|(_, url)| url.trim().to_owned()).ok_or(log)
    })
    .await;
    let mut broadcaster = service(
        "agentforge-broadcaster",
        &system.nats,
        &[
            ("WEBHOOK_URL", &url),
            ("WEBHOOK_SECRET", SECRET),
            ("EGRESS_ALLOW", "127.0.0.0/8"),
            ("BROADCASTER_SUBJECTS", "agentforge.events.job.>"),
        ],
    );
    broadcaster.ready(PATIENCE).await;
    let _ = agentforge_runtime::Process::for_tests();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();

    let submitted = system.submit_by_rest("echo", r#"{"hello": "world"}"#).await;
    assert!(submitted.status.success(), "{}", shown(&submitted));
    eventually(PATIENCE, "the receiver took the job's last event", || async {
        let log = receiver.full_log();
        if log.contains("\"agentforge.job.succeeded\"") { Ok(()) } else { Err(log) }
    })
    .await;
    let log = receiver.full_log();
    let ids: Vec<String> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|line| line["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an event twice: {log}");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let forged = http.post(&url).header("webhook-id", "forged").header("webhook-timestamp", now.to_string());
    let forged = forged.header("webhook-signature", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=").body("{}");
    assert_eq!(forged.send().await.unwrap().status(), 401);
    let unsigned = http.post(&url).body("{}").send().await.unwrap();
    assert_eq!(unsigned.status(), 401);
    assert!(!receiver.full_log().contains("forged"));
    receiver.kill9();
}

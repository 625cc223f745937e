//! The stack under test: `agentforge-stack dev --processes` as a child, with a data directory of its own.

use crate::{
    check::{self, Delivery},
    process::{processor_time, sibling, spawn},
};
use agentforge_stack::{
    child::Child,
    patience::{Patience, last_line},
    roster::SERVICES,
};
use agentforge_terminal::{Failure, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the stack may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// When it takes longer it is said: after the stack has said so into its log.
const SAY_AFTER: Duration = Duration::from_secs(12);

#[derive(Debug, Deserialize)]
struct Ready {
    nats: Nats,
    services: BTreeMap<String, Service>,
}

#[derive(Debug, Deserialize)]
struct Nats {
    url: String,
    pid: i32,
}

#[derive(Debug, Deserialize)]
pub struct Service {
    /// The URL of its HTTP listener, without a path.
    pub http: String,
    grpc: Option<String>,
    pid: i32,
}

/// A running stack. Killed when dropped.
pub struct Stack {
    child: Child,
    ready: Ready,
    dir: PathBuf,
    store: String,
    remove: bool,
}

/// Resident memory of each process, MiB.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory(pub BTreeMap<String, u64>);

/// What differs between stacks.
pub struct Setup {
    /// Where it keeps its data; removed at the end unless it existed.
    pub dir: PathBuf,
    /// Jobs the worker runs at once.
    pub concurrency: u32,
    /// JOB_EVENTS of the orchestrators: which events they publish.
    pub events: String,
    /// A database elsewhere.
    pub store: Option<String>,
    /// Further settings of all services.
    pub env: Vec<(&'static str, String)>,
}

impl Stack {
    /// Starts NATS, orchestrator and worker as separate processes.
    pub async fn start(setup: &Setup) -> Result<Self> {
        let dir = setup.dir.clone();
        let remove = !dir.exists();
        std::fs::create_dir_all(&dir).map_err(|e| Failure::new(format!("cannot make {}: {e}", dir.display())))?;
        let dir = dir.canonicalize().map_err(|e| Failure::new(format!("cannot find {}: {e}", dir.display())))?;
        let ready_file = dir.join("ready.json");
        let _ = std::fs::remove_file(&ready_file);
        let extras: Vec<&str> =
            SERVICES.iter().filter(|service| service.optional.is_some()).map(|service| service.name).collect();
        let mut command = sibling("agentforge-stack")?;
        command
            .args(["dev", "--processes", "--no-demo", "--port-base", "0"])
            // On a machine with few cores they would be measured, too: each of a job's events is a webhook to them.
            .args(["--without", &extras.join(",")])
            .arg("--data-dir")
            .arg(&dir)
            .arg("--ready-file")
            .arg(&ready_file)
            .args(["--concurrency", &setup.concurrency.to_string()])
            .env("JOB_EVENTS", &setup.events)
            .env("OUTBOX_MAX", "2000000")
            .env("JOB_DEADLINE", "off")
            .env("LOG_LEVEL", "warn")
            .envs(setup.env.iter().map(|(key, value)| (key, value)));
        if let Some(store) = &setup.store {
            command.args(["--store", store]);
        }
        let log = dir.join("stack.log");
        let mut child = spawn(&command, &log).await?;
        // It says itself which part keeps it waiting: that is the last line of its log.
        let mut patience = Patience::new("the stack", Some(&log), READY_WITHIN).say_after(SAY_AFTER);
        let ready = loop {
            if let Ok(text) = std::fs::read_to_string(&ready_file) {
                break serde_json::from_str::<Ready>(&text)
                    .map_err(|e| Failure::new(format!("the ready file cannot be read: {e}")))?;
            }
            if let Some(status) = child.try_ended() {
                return Err(Failure::new(format!("the stack ended ({status}){}", last_line(&log))));
            }
            patience.wait(Duration::from_millis(20), "").await?;
        };
        let store = setup.store.clone().unwrap_or_else(|| "sqlite://agentforge.db".into());
        Ok(Self { child, ready, dir, store, remove })
    }

    /// Where it keeps its data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The NATS server.
    pub fn nats_url(&self) -> &str {
        &self.ready.nats.url
    }

    /// One of its services.
    pub fn service(&self, name: &str) -> Result<&Service> {
        self.ready.services.get(name).ok_or_else(|| Failure::new(format!("the ready file names no {name}")))
    }

    /// The orchestrator's gRPC address.
    pub fn grpc(&self) -> Result<String> {
        self.service("orchestrator")?.grpc.clone().ok_or_else(|| Failure::new("the ready file names no gRPC address"))
    }

    /// The orchestrator's REST address.
    pub fn http(&self) -> Result<String> {
        Ok(self.service("orchestrator")?.http.clone())
    }

    /// Freezes the worker, or lets it continue.
    pub fn freeze_worker(&self, freeze: bool) -> Result {
        let pid = Pid::from_raw(self.service("worker")?.pid).ok_or_else(|| Failure::new("the worker has no pid"))?;
        let signal = if freeze { Signal::STOP } else { Signal::CONT };
        kill_process(pid, signal).map_err(|e| Failure::new(format!("cannot signal the worker: {e}")))
    }

    /// The process of a service, or of `nats-server`.
    pub fn pid(&self, name: &str) -> Option<i32> {
        match name {
            "nats-server" => Some(self.ready.nats.pid),
            name => Some(self.ready.services.get(name)?.pid),
        }
    }

    /// Resident memory now.
    pub fn memory(&self) -> Memory {
        Memory(self.pids().filter_map(|(name, pid)| Some((name, resident_mib(pid)?))).collect())
    }

    /// Processor time that each process of it took so far.
    pub fn processor_times(&self) -> BTreeMap<String, Duration> {
        self.pids().filter_map(|(name, pid)| Some((name, processor_time(pid)?))).collect()
    }

    /// NATS and the services, by name.
    fn pids(&self) -> impl Iterator<Item = (String, i32)> {
        let services = self.ready.services.iter().map(|(name, service)| (name.clone(), service.pid));
        services.chain([("nats-server".into(), self.ready.nats.pid)])
    }

    /// Looks into the database whether every job of `label` has exactly one committed result.
    pub async fn check(&self, label: &str, expected: u64) -> Result<Delivery> {
        check::delivery(&self.store, &self.dir, label, expected).await
    }

    /// Drains and ends it, and removes what it wrote.
    pub async fn stop(&mut self) -> Result {
        self.child.signal(Signal::TERM);
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.ended()).await;
        if self.remove {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Failure::new(format!("the stack ended badly: {status}"))),
            Ok(Err(e)) => Err(Failure::new(format!("the stack could not be awaited: {e}"))),
            Err(_) => Err(Failure::new("the stack did not end within 60 s")),
        }
    }
}

/// Resident memory of a process, MiB.
pub fn resident_mib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: u64 = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

/// One page of an HTTP server on this machine.
pub async fn fetch(base: &str, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = base.trim_start_matches("http://").trim_end_matches('/');
    let failed = |e: std::io::Error| Failure::new(format!("cannot read {base}{path}: {e}"));
    let mut stream = tokio::net::TcpStream::connect(address).await.map_err(failed)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(failed)?;
    answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .ok_or_else(|| Failure::new(format!("{base}{path} gave no page")))
}

/// The sum of a metric's series, from a service's own page.
pub async fn metric(base: &str, name: &str) -> Result<u64> {
    let page = fetch(base, "/metrics").await?;
    let sum: f64 = page
        .lines()
        .filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    Ok(sum as u64)
}

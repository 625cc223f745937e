//! The stack under test: `agentforge dev --processes` as a child, with a data directory of its own.

use super::check::{self, Delivery};
use super::jobs::Args;
use crate::error::{Failure, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long the stack may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

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
struct Service {
    http: String,
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

impl Stack {
    /// Starts NATS, orchestrator and worker as separate processes.
    pub async fn start(args: &Args) -> Result<Self> {
        let dir = args.data_dir.clone().unwrap_or_else(|| PathBuf::from(".agentforge-bench"));
        let remove = !dir.exists();
        std::fs::create_dir_all(&dir).map_err(|e| Failure::new(format!("cannot make {}: {e}", dir.display())))?;
        let dir = dir.canonicalize().map_err(|e| Failure::new(format!("cannot find {}: {e}", dir.display())))?;
        let ready_file = dir.join("ready.json");
        let _ = std::fs::remove_file(&ready_file);
        let exe = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
        let log = std::fs::File::create(dir.join("stack.log"))
            .map_err(|e| Failure::new(format!("cannot write a log: {e}")))?;
        let mut command = Command::new(exe);
        command
            .args(["dev", "--processes", "--no-demo", "--port-base", "0"])
            .arg("--data-dir")
            .arg(&dir)
            .arg("--ready-file")
            .arg(&ready_file)
            .args(["--concurrency", &args.concurrency.to_string()])
            .env("JOB_EVENTS", &args.events)
            .env("OUTBOX_MAX", "2000000")
            .env("JOB_DEADLINE", "off")
            .env("LOG_LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| Failure::new(e.to_string()))?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some(store) = &args.store {
            command.args(["--store", store]);
        }
        let mut child = command.spawn().map_err(|e| Failure::new(format!("cannot start the stack: {e}")))?;
        let until = Instant::now() + READY_WITHIN;
        let ready = loop {
            if let Ok(text) = std::fs::read_to_string(&ready_file) {
                break serde_json::from_str::<Ready>(&text)
                    .map_err(|e| Failure::new(format!("the ready file cannot be read: {e}")))?;
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Failure::new(format!(
                    "the stack ended ({status}); see {}",
                    dir.join("stack.log").display()
                )));
            }
            if Instant::now() > until {
                return Err(Failure::new(format!(
                    "the stack was not ready within {READY_WITHIN:?}; see {}",
                    dir.join("stack.log").display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let store = args.store.clone().unwrap_or_else(|| "sqlite://agentforge.db".into());
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

    fn service(&self, name: &str) -> Result<&Service> {
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

    /// Stops the worker in its tracks, or lets it go on.
    pub fn freeze_worker(&self, freeze: bool) -> Result {
        let pid = Pid::from_raw(self.service("worker")?.pid).ok_or_else(|| Failure::new("the worker has no pid"))?;
        let signal = if freeze { Signal::STOP } else { Signal::CONT };
        kill_process(pid, signal).map_err(|e| Failure::new(format!("cannot signal the worker: {e}")))
    }

    /// Resident memory now.
    pub fn memory(&self) -> Memory {
        let pids = self
            .ready
            .services
            .iter()
            .map(|(n, s)| (n.clone(), s.pid))
            .chain([("nats-server".into(), self.ready.nats.pid)]);
        Memory(pids.filter_map(|(name, pid)| Some((name, resident_mib(pid)?))).collect())
    }

    /// Looks into the database whether every job of `label` has exactly one committed result.
    pub async fn check(&self, label: &str, expected: u64) -> Result<Delivery> {
        check::delivery(&self.store, &self.dir, label, expected).await
    }

    /// Drains and ends it, and removes what it wrote.
    pub async fn stop(&mut self) -> Result {
        if let Some(pid) = self.child.id().and_then(|p| Pid::from_raw(i32::try_from(p).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
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

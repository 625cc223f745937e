//! NATS, orchestrator and worker as real processes, each of which can be killed and started again.

use crate::api::Api;
use agentforge_harness::{NatsOptions, NatsServer, Proc, ProcBuilder, cargo_bin, eventually};
use agentforge_stack::{roster, settings::Settings};
use async_nats::jetstream;
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;

/// How long a process may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// What differs from a plain stack.
#[derive(Clone, Default)]
pub struct Options {
    pub nats: NatsOptions,
    pub orchestrator: BTreeMap<String, String>,
    pub worker: BTreeMap<String, String>,
    pub workers: usize,
    pub orchestrators: usize,
    /// A NATS address other than the server's own (a proxy).
    pub nats_url: Option<String>,
    /// `postgres://…`; SQLite in the stack's directory when empty.
    pub store: Option<String>,
    /// A tools file for the workers.
    pub tools: Option<String>,
}

impl Options {
    pub fn new() -> Self {
        Self { workers: 1, orchestrators: 1, ..Self::default() }
    }
    pub fn orchestrator(mut self, key: &str, value: &str) -> Self {
        self.orchestrator.insert(key.into(), value.into());
        self
    }
    pub fn worker(mut self, key: &str, value: &str) -> Self {
        self.worker.insert(key.into(), value.into());
        self
    }
    pub fn tools(mut self, toml: &str) -> Self {
        self.tools = Some(toml.into());
        self
    }
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = n;
        self
    }
}

pub struct Stack {
    pub nats: NatsServer,
    pub orchestrators: Vec<Proc>,
    pub workers: Vec<Proc>,
    pub options: Options,
    /// Where each worker's metrics are.
    pub worker_metrics: Vec<String>,
    bases: Vec<String>,
    dir: TempDir,
}

impl Stack {
    pub async fn start(options: Options) -> Self {
        let nats = NatsServer::start(options.nats.clone()).await;
        Self::start_on(nats, options).await
    }

    pub async fn start_on(nats: NatsServer, options: Options) -> Self {
        let dir = TempDir::new().unwrap();
        if let Some(tools) = &options.tools {
            std::fs::write(dir.path().join("tools.toml"), tools).unwrap();
        }
        let mut stack =
            Self { nats, orchestrators: vec![], workers: vec![], bases: vec![], worker_metrics: vec![], options, dir };
        for n in 0..stack.options.orchestrators {
            let mut p = stack.spawn_orchestrator(0);
            let base = base_of(&p.ready(READY).await, "orchestrator");
            stack.bases.push(base);
            stack.orchestrators.push(p);
            assert_eq!(stack.orchestrators.len(), n + 1);
        }
        for _ in 0..stack.options.workers {
            let mut p = stack.spawn_worker();
            let ready = p.ready(READY).await;
            stack.worker_metrics.push(ready["worker"]["metrics"].as_str().unwrap().to_owned());
            stack.workers.push(p);
        }
        stack
    }

    /// JetStream as a plain client of the stack's server sees it, once the orchestrator has created the streams: a
    /// service listens before they exist.
    pub async fn jetstream(&self) -> jetstream::Context {
        let js = jetstream::new(async_nats::connect(self.nats.url()).await.unwrap());
        eventually(Duration::from_secs(30), "the orchestrator made its streams", || async {
            for stream in ["swarm_jobs", "swarm_results", "swarm_dlq", "events"] {
                js.get_stream(stream).await.map_err(|e| format!("{stream}: {e}"))?;
            }
            Ok::<_, String>(())
        })
        .await;
        js
    }

    pub fn api(&self) -> Api {
        Api::new(&self.bases[0])
    }

    pub fn api_of(&self, n: usize) -> Api {
        Api::new(&self.bases[n])
    }

    pub fn nats_url(&self) -> String {
        self.options.nats_url.clone().unwrap_or_else(|| self.nats.url())
    }

    pub fn database_url(&self) -> String {
        self.options.store.clone().unwrap_or_else(|| format!("sqlite://{}/agentforge.db", self.dir.path().display()))
    }

    /// A service as it is started on one machine, with what differs in tests.
    fn process(&self, service: &str) -> ProcBuilder {
        let place = Settings {
            store: Some(self.database_url()),
            tools: self.options.tools.as_ref().map(|_| self.dir.path().join("tools.toml")),
            verify_keys: Some(agentforge_orchestrator::keys::dev_verify_keys(self.dir.path()).unwrap()),
            // Streams have the sizes that they have without settings.
            is_set: |_| true,
            ..Settings::new(self.dir.path(), &self.nats_url())
        };
        let row = roster::find(service).unwrap();
        let mut env = row.env(&place).unwrap();
        // The process has a file of its own.
        env.remove("READY_FILE");
        Proc::builder(cargo_bin(&row.binary()))
            .envs(env)
            .env("LOG_LEVEL", "info")
            .env("LOG_FORMAT", "text")
            .env("NATS_MAX_RECONNECT_WAIT", "1s")
    }

    /// `port` 0 takes a free one.
    fn spawn_orchestrator(&self, port: u16) -> Proc {
        let orchestrator = self.process(roster::ORCHESTRATOR).env("HTTP_PORT", port.to_string());
        orchestrator.envs(self.options.orchestrator.clone()).start()
    }

    pub fn spawn_worker(&self) -> Proc {
        self.process(roster::WORKER).envs(self.options.worker.clone()).start()
    }

    /// SIGKILL, then a new process on the same port and database.
    pub async fn kill_orchestrator(&mut self, n: usize) {
        self.orchestrators[n].kill9();
        self.start_orchestrator(n).await;
    }

    /// A new process in the place of one that has ended.
    pub async fn start_orchestrator(&mut self, n: usize) {
        let port = self.bases[n].rsplit(':').next().unwrap().parse().unwrap();
        let mut p = self.spawn_orchestrator(port);
        p.ready(READY).await;
        self.orchestrators[n] = p;
    }

    /// SIGKILL, then a new process.
    pub async fn kill_worker(&mut self, n: usize) {
        self.workers[n].kill9();
        self.start_worker(n).await;
    }

    /// A new process in the place of one that has ended.
    pub async fn start_worker(&mut self, n: usize) {
        let mut p = self.spawn_worker();
        p.ready(READY).await;
        self.workers[n] = p;
    }
}

fn base_of(ready: &serde_json::Value, service: &str) -> String {
    ready[service]["http"]
        .as_str()
        .unwrap_or_else(|| panic!("no {service} in {ready}"))
        .trim_end_matches('/')
        .to_owned()
}

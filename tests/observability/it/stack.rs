//! The whole system as it runs: NATS and every service as a process of its own, on free ports.

use agentforge_harness::{NatsOptions, NatsServer, Proc, cargo_bin, eventually, free_port, http_get, http_post_with};
use agentforge_stack::{
    roster::{self, SERVICES},
    settings::Settings,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// How long anything may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Every service, in the order of their start.
pub fn services() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|service| service.name)
}

/// All services but these.
pub fn all_but(kept: &[&str]) -> Vec<&'static str> {
    services().filter(|service| !kept.contains(service)).collect()
}

/// What differs from a plain stack: settings for all services, and for one.
#[derive(Clone, Default)]
pub struct Options {
    pub nats: NatsOptions,
    pub common: BTreeMap<String, String>,
    pub of: BTreeMap<(&'static str, String), String>,
    /// Monitoring endpoints of other servers, which the exporter reads in addition to the stack's own.
    pub watched: Vec<String>,
    /// Services that are not started; of the [`roster`].
    pub without: Vec<&'static str>,
}

impl Options {
    pub fn set(mut self, service: &'static str, key: &str, value: impl Into<String>) -> Self {
        self.of.insert((service, key.to_owned()), value.into());
        self
    }
    pub fn all(mut self, key: &str, value: impl Into<String>) -> Self {
        self.common.insert(key.to_owned(), value.into());
        self
    }
}

pub struct Stack {
    pub nats: NatsServer,
    options: Options,
    running: BTreeMap<&'static str, Running>,
    dir: TempDir,
}

struct Running {
    proc: Proc,
    /// Its output before it was restarted.
    earlier_logs: String,
    ready: Value,
    ports: [u16; 3],
}

impl Stack {
    pub async fn start(options: Options) -> Self {
        let nats = NatsServer::start(options.nats.clone()).await;
        let dir = TempDir::new().unwrap();
        for folder in ["replay", "ledger"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let mut stack = Self { nats, running: BTreeMap::new(), options, dir };
        let without = stack.options.without.clone();
        for service in services().filter(|service| !without.contains(service)) {
            stack.bring_up(service).await;
        }
        stack
    }

    /// Starts a service, or starts it again on the ports that it had.
    pub async fn bring_up(&mut self, service: &'static str) {
        let before = self.running.remove(service);
        let ports = before.as_ref().map_or_else(|| [free_port(), free_port(), free_port()], |running| running.ports);
        let [http, grpc, metrics] = ports.map(|port| port.to_string());
        let monitor = self.nats.monitor_url();
        let place = Settings {
            nats_monitor: Some(monitor.clone()),
            // Streams have the sizes that they have without settings.
            is_set: |_| true,
            ..Settings::new(self.dir.path(), &self.nats.url())
        };
        let row = roster::find(service).unwrap();
        let mut env = row.env(&place).unwrap();
        for (key, port) in [("HTTP_PORT", &http), ("GRPC_PORT", &grpc), ("METRICS_PORT", &metrics)] {
            env.entry(key.to_owned()).and_modify(|value| value.clone_from(port));
        }
        // The process has a file of its own.
        env.remove("READY_FILE");
        let mut builder = Proc::builder(cargo_bin(&row.binary()));
        if service == "nats-exporter" {
            // As the known exporter is started: by flags.
            env.retain(|key, _| !["METRICS_PORT", "NATS_EXPORTER_TARGETS"].contains(&key.as_str()));
            builder = builder
                .args(["-varz", "-jsz=streams,consumers,accounts", "-port", &metrics, &monitor])
                .args(&self.options.watched);
        }
        builder = builder
            .envs(env)
            .env("NATS_MAX_RECONNECT_WAIT", "1s")
            .env("LOG_FORMAT", "json")
            .env("LOG_LEVEL", "info")
            .env("SHUTDOWN_PAUSE", "0s");
        if service == roster::SYNCDAEMON {
            builder = builder.env("SYNC_SETTLE", "200ms");
        }
        let own = self.options.of.iter().filter(|((of, _), _)| *of == service);
        let mut proc = builder
            .envs(self.options.common.clone())
            .envs(own.map(|((_, key), value)| (key.clone(), value.clone())))
            .start();
        let ready = proc.ready(DEADLINE).await[service].clone();
        let earlier_logs = before.map(|running| running.earlier_logs + &running.proc.full_log()).unwrap_or_default();
        self.running.insert(service, Running { proc, earlier_logs, ready, ports });
    }

    pub fn proc(&mut self, service: &str) -> &mut Proc {
        &mut self.running.get_mut(service).unwrap_or_else(|| panic!("{service} does not run")).proc
    }

    fn address(&self, service: &str, what: &str) -> String {
        let running = self.running.get(service).unwrap_or_else(|| panic!("{service} does not run"));
        running.ready[what].as_str().unwrap_or_else(|| panic!("{service} has no {what}: {}", running.ready)).to_owned()
    }

    pub fn http(&self, service: &str) -> String {
        self.address(service, "http").trim_end_matches('/').to_owned()
    }

    pub fn grpc(&self) -> String {
        self.address("orchestrator", "grpc")
    }

    /// Where the page of metrics is: URL of each service that runs.
    pub fn pages(&self) -> BTreeMap<&'static str, String> {
        self.running.keys().map(|service| (*service, self.address(service, "metrics"))).collect()
    }

    pub async fn page(&self, service: &str) -> String {
        let (status, body) = http_get(&self.address(service, "metrics"), &[]).await.unwrap();
        assert_eq!(status, 200, "{service}");
        String::from_utf8(body).unwrap()
    }

    /// Lines of a service's log, as JSON.
    pub fn log(&self, service: &str) -> Vec<Value> {
        let running = &self.running[service];
        let text = format!("{}{}", running.earlier_logs, running.proc.full_log());
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn replay_dir(&self) -> PathBuf {
        self.dir.path().join("replay")
    }

    pub async fn post(&self, path: &str, headers: &[&str], body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.http("orchestrator"));
        let (status, body) = http_post_with(&url, headers, &body.to_string()).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    pub async fn get(&self, path: &str) -> Value {
        let (_, body) = http_get(&format!("{}{path}", self.http("orchestrator")), &[]).await.unwrap();
        serde_json::from_slice(&body).unwrap_or_default()
    }

    /// Submits a job and gives its id.
    pub async fn job(&self, tool: &str, args: Value) -> String {
        self.job_as(json!({"tool": tool, "args": args})).await
    }

    pub async fn job_as(&self, body: Value) -> String {
        let (status, job) = self.post("/v1/jobs", &[], &body).await;
        assert!(status == 202 || status == 200, "{status}: {job}");
        job["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a job is in this state.
    pub async fn reaches(&self, id: &str, state: &str) {
        eventually(DEADLINE, &format!("job {id} is {state}"), async || {
            let job = self.get(&format!("/v1/jobs/{id}")).await;
            if job["state"] == state { Ok(()) } else { Err(job.to_string()) }
        })
        .await;
    }
}

/// The series of a page: the part before the value, and the value.
pub fn series(page: &str) -> impl Iterator<Item = (&str, f64)> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series, value.parse().ok()?))
    })
}

/// The sum of a metric's series whose text holds all of `with`.
pub fn sum(page: &str, metric: &str, with: &[&str]) -> f64 {
    series(page)
        .filter(|(s, _)| s.split('{').next() == Some(metric) && with.iter().all(|part| s.contains(part)))
        .map(|(_, value)| value)
        .sum()
}

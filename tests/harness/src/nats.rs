//! A real NATS server per test: own ports, own store, and the faults a server can suffer.

use crate::{
    child::{self, ChildHandle, Signal, Spec},
    eventually,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// A cold start with a store to recover on a busy machine.
const START: Duration = Duration::from_secs(30);
/// SIGTERM to exit, store closed.
const STOP: Duration = Duration::from_secs(20);

/// What differs from a plain server with JetStream.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Lines for the top level of the server's configuration, such as `max_payload: 65536`.
    pub extra: String,
    /// Lines for the `jetstream` block, such as `sync_interval: always` or `domain: hub`.
    pub jetstream: String,
    /// No JetStream at all.
    pub without_jetstream: bool,
    /// A version such as `2.12.0` instead of the one that all tests use.
    pub version: Option<String>,
}

impl NatsOptions {
    /// Adds lines at the top level of the configuration.
    #[must_use]
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }
    /// Adds lines to the `jetstream` block.
    #[must_use]
    pub fn jetstream(mut self, lines: &str) -> Self {
        self.jetstream.push_str(lines);
        self.jetstream.push('\n');
        self
    }
    /// Another version than the one that all tests use; [`crate::require_nats`] asks for it first.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }
}

/// A nats-server on 127.0.0.1. Its ports and its store stay the same over restarts; the process and
/// the store go when it is dropped, and its log is printed when the test fails.
pub struct NatsServer {
    child: Option<ChildHandle>,
    dir: TempDir,
    port: u16,
    monitor: u16,
    options: NatsOptions,
}

impl NatsServer {
    /// Starts a server and waits until it serves.
    ///
    /// # Panics
    /// When there is no server to start (ask [`crate::require`] first) or it does not come up.
    pub async fn start(options: NatsOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("agentforge-nats-").tempdir().expect("a temporary folder");
        let mut server = Self { child: None, dir, port: 0, monitor: 0, options };
        server.launch().await;
        server
    }

    /// `nats://127.0.0.1:<port>`, the same over restarts.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }
    /// `127.0.0.1:<port>`, as a proxy's backend.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
    /// `http://127.0.0.1:<port>` of the monitoring endpoints.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }
    /// The process id; `None` while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(ChildHandle::pid)
    }
    /// Where the streams are stored.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }
    /// The last lines of the server's log.
    pub fn log(&self) -> String {
        child::tail(&self.log_path())
    }

    /// SIGKILL. Clients see the connection break; what was not written by the server is lost.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill9();
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When the server does not end in time.
    pub async fn stop_gracefully(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.signal(Signal::TERM);
            assert!(child.wait(STOP).await.is_some(), "nats-server did not end on SIGTERM within {STOP:?}");
        }
    }

    /// Starts the server again on the same ports and store; kills it first if it still runs.
    pub async fn restart(&mut self) {
        self.kill9();
        self.launch().await;
    }

    /// As [`Self::restart`], with another version of the server: an upgrade over its own data.
    pub async fn restart_as(&mut self, version: &str) {
        self.options.version = Some(version.to_owned());
        self.restart().await;
    }

    /// As [`Self::restart`], with other options (a changed configuration).
    pub async fn restart_with(&mut self, options: NatsOptions) {
        self.options = options;
        self.restart().await;
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.running().pause();
    }
    /// SIGCONT after [`Self::pause`].
    pub fn resume(&mut self) {
        self.running().signal(Signal::CONT);
    }

    fn running(&mut self) -> &mut ChildHandle {
        self.child.as_mut().expect("the server runs")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("nats-server.log")
    }

    fn write_config(&self) -> PathBuf {
        let path = self.dir.path().join("nats-server.conf");
        let NatsOptions { extra, jetstream, without_jetstream, .. } = &self.options;
        let store = self.store_dir();
        let jetstream = if *without_jetstream {
            String::new()
        } else {
            // Without a limit the server promises three quarters of what is free on the disk, and the streams' sizes as
            // they ship are refused on a machine whose disk is nearly full. As shipped servers, this one has a limit.
            let limit = if jetstream.contains("max_file") { "" } else { "  max_file_store: 64GB\n" };
            format!("jetstream {{\n  store_dir: \"{}\"\n{limit}{jetstream}\n}}\n", store.display())
        };
        std::fs::write(&path, format!("{extra}\n{jetstream}")).expect("the configuration can be written");
        path
    }

    async fn launch(&mut self) {
        let binary = match &self.options.version {
            Some(version) => crate::provided::nats_server_of(version),
            None => binary(),
        };
        let binary = binary.unwrap_or_else(|e| panic!("{e}"));
        let config = self.write_config();
        let port = |p: u16| if p == 0 { "-1".to_owned() } else { p.to_string() };
        let end = tokio::time::Instant::now() + START;
        // A known port may be held for a moment by a connection of somebody else: try again until START.
        loop {
            let spec = Spec::new(&binary, self.log_path()).args([
                "-a",
                "127.0.0.1",
                "-p",
                &port(self.port),
                "-m",
                &port(self.monitor),
                "-c",
                &config.to_string_lossy(),
                "--ports_file_dir",
                &self.dir.path().to_string_lossy(),
            ]);
            let mut child = spec.start().unwrap_or_else(|e| panic!("start {}: {e}", binary.display()));
            match self.ports_of(&mut child).await {
                Some((port, monitor)) => {
                    (self.port, self.monitor, self.child) = (port, monitor, Some(child));
                    return;
                }
                None if self.may_come_up() && tokio::time::Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                None => panic!("nats-server ended at its start:\n{}", self.log()),
            }
        }
    }

    /// Whether it ended for want of a port that was free a moment ago: its own, or one of its configuration.
    fn may_come_up(&self) -> bool {
        self.port != 0 || self.log().contains("address already in use")
    }

    /// The ports that the server wrote once it listens; `None` when it ended instead.
    async fn ports_of(&self, child: &mut ChildHandle) -> Option<(u16, u16)> {
        #[derive(serde::Deserialize)]
        struct Ports {
            nats: Vec<url::Url>,
            monitoring: Vec<url::Url>,
        }
        let pid = child.pid();
        eventually(START, "nats-server writes its ports file", || {
            let ended = child.try_status().is_some();
            let seen = ports_file(self.dir.path(), pid).ok_or_else(|| "there is none".to_owned());
            let seen = seen.and_then(|file| std::fs::read(file).map_err(|e| e.to_string()));
            async move {
                if ended {
                    return Ok(None);
                }
                let ports: Ports = serde_json::from_slice(&seen?).map_err(|e| e.to_string())?;
                let first = |urls: &[url::Url]| urls.first().and_then(url::Url::port).unwrap_or(0);
                Ok::<_, String>(Some((first(&ports.nats), first(&ports.monitoring))))
            }
        })
        .await
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        child::print_if_failing("nats-server", &self.log_path());
        self.kill9();
    }
}

/// The ports file of a process. The server names it after its program, which may have any name.
fn ports_file(folder: &Path, pid: u32) -> Option<PathBuf> {
    let end = format!("_{pid}.ports");
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&end)))
}

/// The server binary, found or provided by `scripts/nats-server`.
pub(crate) fn binary() -> Result<PathBuf, String> {
    crate::program("nats-server")
}

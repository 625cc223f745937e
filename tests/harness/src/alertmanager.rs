//! A real Alertmanager per test: own port, own store, and the configuration that the test gives it.

use crate::{
    child::{self, ChildHandle, Spec},
    eventually, free_port, http_get, http_post, prometheus,
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};
use tempfile::TempDir;

/// A cold start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// An Alertmanager on 127.0.0.1, without peers. It ends, and its store goes, when it is dropped; its log is
/// printed when the test fails.
pub struct Alertmanager {
    _child: ChildHandle,
    dir: TempDir,
    port: u16,
}

impl Alertmanager {
    /// Starts one with this configuration (YAML) and waits until it is ready.
    ///
    /// # Panics
    /// When there is none to start (ask [`crate::require`] first) or it does not come up.
    pub async fn start(configuration: &str) -> Self {
        let bin = binaries().unwrap_or_else(|e| panic!("{e}"));
        let program = ["alertmanager", "prometheus-alertmanager"].map(|name| bin.join(name));
        let program = program.iter().find(|p| p.is_file()).expect("scripts/prometheus has looked");
        let dir = tempfile::Builder::new().prefix("agentforge-alertmanager-").tempdir().expect("a temporary folder");
        let config = dir.path().join("alertmanager.yml");
        std::fs::write(&config, configuration).expect("the configuration can be written");
        let port = free_port();
        let spec = Spec::new(program, dir.path().join("log")).args([
            format!("--config.file={}", config.display()),
            format!("--storage.path={}", dir.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--cluster.listen-address=".to_owned(),
            "--log.level=info".to_owned(),
        ]);
        let mut child = spec.start().unwrap_or_else(|e| panic!("start alertmanager: {e}"));
        let ready = format!("http://127.0.0.1:{port}/-/ready");
        eventually(START, "Alertmanager is ready", || {
            assert!(child.try_status().is_none(), "alertmanager ended at its start:\n{}", child.log());
            let ready = &ready;
            async move { matches!(http_get(ready, &[]).await, Ok((200, _))) }
        })
        .await;
        Self { _child: child, dir, port }
    }

    /// Where it listens, without the scheme.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Gives it alerts, as Prometheus does (`/api/v2/alerts`).
    ///
    /// # Errors
    /// What it says instead of 200.
    pub async fn post(&self, alerts: &Value) -> Result<(), String> {
        let url = format!("http://{}/api/v2/alerts", self.address());
        match http_post(&url, &alerts.to_string()).await.map_err(|e| e.to_string())? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
        }
    }

    /// Its alerts, with what inhibits them and which receivers are notified.
    ///
    /// # Errors
    /// No connection, or an answer that is not a list.
    pub async fn alerts(&self) -> Result<Vec<Value>, String> {
        let url = format!("http://{}/api/v2/alerts", self.address());
        let (_, body) = http_get(&url, &[]).await.map_err(|e| e.to_string())?;
        serde_json::from_slice(&body).map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&body)))
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        child::print_if_failing("alertmanager", &self.dir.path().join("log"));
    }
}

/// Runs amtool; gives whether it was content, and what it said.
///
/// # Panics
/// When there is none (ask [`crate::require`] first).
pub fn amtool(args: &[&str]) -> (bool, String) {
    prometheus::tool(binaries(), "amtool", args, b"")
}

/// The folder of Alertmanager and amtool, found or provided by `scripts/prometheus`; asked once.
pub(crate) fn binaries() -> Result<&'static Path, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| prometheus::provided(&["--path", "alertmanager"])).as_deref().map_err(Clone::clone)
}

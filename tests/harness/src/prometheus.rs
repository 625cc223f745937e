//! A real Prometheus per test: own port, own store, and the rules and targets that the test gives it.

use crate::{
    child::{self, ChildHandle, Spec},
    eventually, free_port, http_get,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};
use tempfile::TempDir;

/// A cold start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A Prometheus on 127.0.0.1. It ends, and its store goes, when it is dropped; its log is printed when
/// the test fails.
pub struct Prometheus {
    _child: ChildHandle,
    dir: TempDir,
    port: u16,
}

/// One series of an answer: its labels and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Labels, the name among them.
    pub labels: BTreeMap<String, String>,
    /// The value now.
    pub value: f64,
}

impl Prometheus {
    /// Starts one with this configuration (YAML) and waits until it is ready. `rule_files` may name any
    /// absolute path.
    ///
    /// # Panics
    /// When there is none to start (ask [`crate::require`] first) or it does not come up.
    pub async fn start(configuration: &str) -> Self {
        let bin = binaries().unwrap_or_else(|e| panic!("{e}"));
        let dir = tempfile::Builder::new().prefix("agentforge-prometheus-").tempdir().expect("a temporary folder");
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, configuration).expect("the configuration can be written");
        let port = free_port();
        let spec = Spec::new(bin.join("prometheus"), dir.path().join("log")).args([
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ]);
        let mut child = spec.start().unwrap_or_else(|e| panic!("start prometheus: {e}"));
        let ready = format!("http://127.0.0.1:{port}/-/ready");
        eventually(START, "Prometheus is ready", || {
            assert!(child.try_status().is_none(), "prometheus ended at its start:\n{}", child.log());
            let ready = &ready;
            async move { matches!(http_get(ready, &[]).await, Ok((200, _))) }
        })
        .await;
        Self { _child: child, dir, port }
    }

    /// Where it listens, as a base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What an expression gives now.
    ///
    /// # Errors
    /// What Prometheus says instead.
    pub async fn query(&self, expression: &str) -> Result<Vec<Series>, String> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let url = format!("http://127.0.0.1:{}/api/v1/query?query={query}", self.port);
        let (_, body) = http_get(&url, &[]).await.map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        let Some(result) = answer["data"]["result"].as_array() else { return Err(answer.to_string()) };
        let series = |found: &Value| {
            let labels = found["metric"].as_object()?.iter();
            let labels = labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
            Some(Series { labels, value: found["value"][1].as_str()?.parse().ok()? })
        };
        result.iter().map(series).collect::<Option<Vec<_>>>().ok_or_else(|| answer.to_string())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        child::print_if_failing("prometheus", &self.dir.path().join("log"));
    }
}

/// Runs promtool with `input` on its standard input; gives whether it was content, and what it said.
///
/// # Panics
/// When there is none (ask [`crate::require`] first).
pub fn promtool(args: &[&str], input: &[u8]) -> (bool, String) {
    tool(binaries(), "promtool", args, input)
}

/// Runs one of the tools that come with a server.
pub(crate) fn tool(folder: Result<&Path, String>, name: &str, args: &[&str], input: &[u8]) -> (bool, String) {
    use std::{io::Write, process::Stdio};
    let bin = folder.unwrap_or_else(|e| panic!("{e}"));
    let mut command = Command::new(bin.join(name));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the tool can be started");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    let input = input.to_vec();
    // It may stop reading early, and says why.
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = child.wait_with_output().expect("the tool can be awaited");
    feed.join().expect("writing into a pipe does not panic");
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The folder of prometheus and promtool, found or provided by `scripts/prometheus`; asked once.
pub(crate) fn binaries() -> Result<&'static Path, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| provided(&["--path"])).as_deref().map_err(Clone::clone)
}

/// The path that `scripts/prometheus` prints; it downloads the program where it is missing.
pub(crate) fn provided(args: &[&str]) -> Result<PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/prometheus");
    let out = Command::new(script).args(args).output().map_err(|e| format!("{script}: {e}"))?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
    if out.status.success() { Ok(PathBuf::from(text(&out.stdout))) } else { Err(text(&out.stderr)) }
}

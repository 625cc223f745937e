//! Whole processes: this test binary starts itself again, and the copy runs `main_from`.

use crate::support::{Probe, ask, open, read_until};
use agentforge_config::Env;
use agentforge_runtime::main_from;
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const ARGUMENTS: &str = "UNDER_TEST_ARGUMENTS";

/// The copy's part: not a test of its own, it runs only when asked to.
#[test]
fn child() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else {
        return;
    };
    // The test runner left its own text on the line.
    println!();
    let arguments = arguments.split_whitespace().map(Into::into);
    std::process::exit(main_from::<Probe>(arguments, &Env).into());
}

pub struct Started {
    child: Child,
    ready: PathBuf,
    _directory: tempfile::TempDir,
}

pub fn start(arguments: &str, settings: &[(&str, &str)]) -> Started {
    start_by(Command::new(std::env::current_exe().unwrap()), arguments, settings)
}

/// `command` is this test binary, or a program that starts it with the arguments that follow.
fn start_by(mut command: Command, arguments: &str, settings: &[(&str, &str)]) -> Started {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready.json");
    command.args(["--exact", "process::child", "--nocapture", "--test-threads=1"]);
    for key in agentforge_config::Common::SETTINGS.iter().map(|setting| setting.key) {
        command.env_remove(key);
    }
    command.env(ARGUMENTS, arguments).env("READY_FILE", &ready).env("METRICS_PORT", "0");
    command.envs(settings.iter().copied());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Started { child, ready, _directory: directory }
}

impl Started {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// The addresses from the ready file, once it exists.
    pub async fn ready(&mut self) -> serde_json::Value {
        let start = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&self.ready) {
                return serde_json::from_str(&text).unwrap();
            }
            assert!(self.child.try_wait().unwrap().is_none(), "ended before it was ready");
            assert!(start.elapsed() < Duration::from_secs(30), "not ready within 30 s");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for the end, for at most 30 s.
    pub fn end(mut self) -> Output {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(30) {
                self.child.kill().unwrap();
                panic!("still running after 30 s: {:?}", self.child.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.wait_with_output().unwrap()
    }
}

pub fn address(ready: &serde_json::Value, which: &str) -> SocketAddr {
    let url = ready["probe"][which].as_str().unwrap();
    url.trim_start_matches("http://").trim_end_matches("/metrics").parse().unwrap()
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn wrong_settings_exit_with_64_and_are_all_named() {
    let settings =
        [("METRICS_PORT", "many"), ("MISSION", "a.b"), ("LOG_LEVEL", "info,[=debug"), ("PROBE_TOKEN", "hunter2")];
    for arguments in ["", "--check-config"] {
        let output = start(arguments, &settings).end();
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(64), "{stderr}");
        for part in
            ["METRICS_PORT: is not a whole number (value \"many\"; allowed: port 0-65535", "MISSION:", "LOG_LEVEL:"]
        {
            assert!(stderr.contains(part), "{part} in\n{stderr}");
        }
        assert!(!stderr.contains("hunter2"));
    }
    assert_eq!(start("--frobnicate", &[]).end().status.code(), Some(64));
}

#[test]
fn a_check_and_a_start_agree_on_variables_that_are_no_settings() {
    let foreign = [
        ("HTTP_VERBOSITY", "DEBUG"),
        ("METRICS_HOST", "10.0.0.1"),
        ("PROBE_SERVICE_HOST", "10.0.0.2"),
        ("PROBE_PORT_8080_TCP", "tcp://10.0.0.2:8080"),
    ];
    let output = start("--check-config", &foreign).end();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("METRICS_HOST is not a setting of this service"), "{stderr}");
    assert!(!stderr.contains("PROBE_"), "Kubernetes' own are no news: {stderr}");
    let output = start("", &[foreign.as_slice(), &[("PROBE_TRICKS", "end-early")]].concat()).end();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(1), "started, and ended as told: {stderr}");
    assert!(stderr.contains("METRICS_HOST"), "{stderr}");

    for arguments in ["", "--check-config"] {
        let output = start(arguments, &[("PROBE_TRIKCS", "fail"), ("LOG_FORMAT", "xml")]).end();
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(64), "{stderr}");
        assert!(stderr.contains("PROBE_TRIKCS") && stderr.contains("did you mean PROBE_TRICKS?"), "{stderr}");
        assert!(stderr.contains("LOG_FORMAT: "), "{stderr}");
    }
}

#[test]
fn check_config_prints_effective_settings_without_secrets() {
    let output = start("--check-config", &[("PROBE_TOKEN", "hunter2"), ("ENV", "staging")]).end();
    let (stdout, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for line in ["ENV=staging", "MISSION=staging  # default", "PROBE_TOKEN=[hidden]", "BIND_ADDR=0.0.0.0  # default"] {
        assert!(stdout.lines().any(|found| found == line), "{line} in\n{stdout}");
    }
    assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"));
}

#[test]
fn help_names_every_setting() {
    let (stdout, _) = text(&start("--help", &[]).end());
    for key in ["ENV", "METRICS_PORT", "READY_FILE", "HTTP_PORT", "PROBE_TOKEN"] {
        assert!(stdout.lines().any(|line| line.trim() == key), "{key} in\n{stdout}");
    }
}

#[tokio::test]
async fn sigterm_drains_and_exits_with_0() {
    let mut started = start("", &[("LOG_FORMAT", "json")]);
    let ready = started.ready().await;
    assert_eq!(ready["probe"]["pid"], started.child.id());
    let http = address(&ready, "http");
    assert!(ask(http, "GET /readyz", "").await.starts_with("HTTP/1.1 200"));
    let metrics = ask(address(&ready, "metrics"), "GET /metrics", "").await;
    assert!(metrics.contains("agentforge_build_info{service=\"probe\""), "{metrics}");
    let mut stream = open(http, "GET /events", "").await;
    read_until(&mut stream, "data: hello").await;

    started.signal();
    let path = started.ready.clone();
    let output = started.end();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(!path.exists(), "nobody shall trust the addresses of a process that is gone");
    // Every line of the log is one JSON object that names the service.
    for line in stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert_eq!(line["service"], "probe", "{line}");
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string());
    }
    assert!(stderr.contains("\"message\":\"READY\""), "{stderr}");
}

#[tokio::test]
async fn an_event_after_a_question_whether_to_log_is_still_a_line() {
    for level in ["info", "info,library=off", "debug,library=off"] {
        let settings = [("LOG_FORMAT", "json"), ("LOG_LEVEL", level), ("PROBE_TRICKS", "ask-and-log")];
        let mut started = start("", &settings);
        started.ready().await;
        started.signal();
        let (_, stderr) = text(&started.end());
        let lines = |word: &str| stderr.lines().filter(|line| line.contains(word)).count();
        assert_eq!(lines("\"message\":\"told\""), 100, "LOG_LEVEL={level}\n{stderr}");
        let traced = stderr.lines().filter(|l| l.contains("\"worked\"") && l.contains("\"trace_id\"")).count();
        assert_eq!(traced, 100, "LOG_LEVEL={level}\n{stderr}");
    }
}

#[tokio::test]
async fn not_ready_comes_before_the_listener_closes() {
    let mut started = start("", &[("SHUTDOWN_PAUSE", "5s")]);
    let ready = started.ready().await;
    let http = address(&ready, "http");
    started.signal();
    let start = Instant::now();
    while !ask(http, "GET /readyz", "").await.starts_with("HTTP/1.1 503") {
        assert!(start.elapsed() < Duration::from_secs(5), "still ready during the pause");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(ask(http, "GET /v1/things/1", "").await.starts_with("HTTP/1.1 200"), "work goes on during the pause");
    assert_eq!(started.end().status.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_exits_at_once_with_130() {
    let mut started = start("", &[("SHUTDOWN_PAUSE", "60s")]);
    let http = address(&started.ready().await, "http");
    started.signal();
    while !ask(http, "GET /readyz", "").await.starts_with("HTTP/1.1 503") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    started.signal();
    assert_eq!(started.end().status.code(), Some(130));
}

#[tokio::test]
async fn a_hangup_drains_and_is_never_taken_for_impatience() {
    let mut started = start("", &[("SHUTDOWN_PAUSE", "4s")]);
    let http = address(&started.ready().await, "http");
    kill_process(started.pid(), Signal::HUP).unwrap();
    while !ask(http, "GET /readyz", "").await.starts_with("HTTP/1.1 503") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A terminal that closes and its shell both send one.
    kill_process(started.pid(), Signal::HUP).unwrap();
    let output = started.end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output).1);
}

#[tokio::test]
async fn a_process_under_nohup_goes_on_after_a_hangup() {
    let mut command = Command::new("nohup");
    command.arg(std::env::current_exe().unwrap());
    let mut started = start_by(command, "", &[]);
    let http = address(&started.ready().await, "http");
    kill_process(started.pid(), Signal::HUP).unwrap();
    assert!(ask(http, "GET /readyz", "").await.starts_with("HTTP/1.1 200"));
    started.signal();
    let output = started.end();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("SIGTERM") && !stderr.contains("SIGHUP"), "{stderr}");
}

#[tokio::test]
async fn a_fatal_task_makes_the_exit_code_tell() {
    for (trick, words) in [("fail", "lost my marbles"), ("end-early", "task short ended although")] {
        let output = start("", &[("PROBE_TRICKS", trick)]).end();
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(1), "{trick}: {stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[tokio::test]
async fn a_deaf_task_cannot_hold_the_process_past_its_grace() {
    let mut started = start("", &[("PROBE_TRICKS", "deaf"), ("SHUTDOWN_GRACE", "1s")]);
    started.ready().await;
    started.signal();
    let start = Instant::now();
    let output = started.end();
    assert_eq!(output.status.code(), Some(1), "work was dropped: {}", text(&output).1);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn a_port_in_use_exits_with_1_and_names_port_and_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for setting in ["HTTP_PORT", "METRICS_PORT"] {
        let output = start("", &[(setting, &port)]).end();
        let (_, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&port) && stderr.contains(setting), "{stderr}");
    }
}

#[test]
fn a_ready_file_that_cannot_be_written_ends_the_start_and_is_named() {
    let output = start("", &[("READY_FILE", "/nowhere/at/all.json")]).end();
    let (_, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("/nowhere/at/all.json") && stderr.contains("READY_FILE"), "{stderr}");
}

#[tokio::test]
async fn a_signal_during_a_hanging_start_stops_it() {
    let mut started = start("", &[("PROBE_TRICKS", "hang-in-build"), ("LOG_FORMAT", "json")]);
    let mut stderr = tokio::process::ChildStderr::from_std(started.child.stderr.take().unwrap()).unwrap();
    let mut seen = String::new();
    while !seen.contains("hanging in build") {
        let mut buffer = [0; 1024];
        let read = tokio::io::AsyncReadExt::read(&mut stderr, &mut buffer);
        let count = tokio::time::timeout(Duration::from_secs(30), read).await.unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    started.signal();
    assert_eq!(started.end().status.code(), Some(0), "{seen}");
}

#[tokio::test]
async fn a_log_line_of_a_request_carries_its_id_and_the_callers_trace() {
    let mut started = start("", &[("LOG_FORMAT", "json")]);
    let http = address(&started.ready().await, "http");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = format!("x-request-id: r-9\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n");
    ask(http, "GET /log", &headers).await;
    ask(http, "GET /log", "").await;
    started.signal();
    let (_, stderr) = text(&started.end());
    let lines = stderr.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let found: Vec<_> = lines.filter(|line| line["message"] == "logging").collect();
    assert_eq!(found.len(), 2, "{stderr}");
    assert_eq!((&found[0]["request_id"], &found[0]["trace_id"]), (&"r-9".into(), &trace.into()));
    assert_eq!((&found[0]["route"], &found[0]["answer"]), (&"/log".into(), &42.into()));
    assert_ne!(found[0]["span_id"], "00f067aa0ba902b7", "a span of our own");
    assert_eq!(found[1]["trace_id"].as_str().map(str::len), Some(32), "a trace of its own without a caller's");
    assert_ne!(found[1]["trace_id"], trace);
}

#[tokio::test]
async fn spans_reach_the_collector_at_the_latest_when_the_process_ends() {
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let mut started = start("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let http = address(&started.ready().await, "http");
    ask(http, "GET /log", "").await;
    started.signal();
    let accepted = tokio::time::timeout(Duration::from_secs(20), collector.accept()).await;
    let (mut stream, _) = accepted.expect("the collector is called").unwrap();
    read_until(&mut stream, "PRI * HTTP/2.0").await;
    // This collector never answers; the process ends all the same.
    assert_eq!(started.end().status.code(), Some(0));
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_neither_work_nor_the_end() {
    for protocol in ["grpc", "http/protobuf"] {
        let away = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        let mut started = start("", &[away, ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
        let http = address(&started.ready().await, "http");
        assert!(ask(http, "GET /v1/things/1", "").await.starts_with("HTTP/1.1 200"));
        let start = Instant::now();
        started.signal();
        assert_eq!(started.end().status.code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(12), "{protocol}: {:?}", start.elapsed());
    }
}

//! Programs that a benchmark starts: quiet, killed when dropped and with the benchmark, and known by the file they write
//! when ready.

use agentforge_stack::{
    child::{Child, Spec},
    locate,
    patience::{Patience, ports_file},
};
use agentforge_terminal::{Failure, Result};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long anything may take to come up.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What failed, and why.
pub fn failed(what: &str, e: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{what}: {e}"))
}

/// Starts a program with its arguments and environment; what it says goes to `log`, which is emptied before.
pub async fn spawn(command: &Command, log: &Path) -> Result<Child> {
    // It starts children, so that they die with this program.
    sibling("agentforge-stack")?;
    let text = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
    let program = command.get_program();
    let spec = Spec {
        name: "benchmark",
        program: program.into(),
        args: command.get_args().map(Into::into).collect(),
        env: command.get_envs().filter_map(|(key, value)| Some((text(key), text(value?)))).collect(),
        log: log.to_owned(),
    };
    let failed = |e: std::io::Error| Failure::new(format!("cannot start {}: {e}", program.to_string_lossy()));
    std::fs::File::create(log).map_err(failed)?;
    spec.start().await.map_err(failed)
}

/// A binary in the folder of this one.
pub fn sibling(name: &str) -> Result<Command> {
    let here = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
    let program = here.with_file_name(name);
    if program.is_file() {
        Ok(Command::new(program))
    } else {
        Err(Failure::new(format!("there is no {}", program.display())).hint("build it: cargo build --release"))
    }
}

/// Processor time that a process took so far, ended threads included; to a hundredth of a second.
pub fn processor_time(pid: i32) -> Option<Duration> {
    /// Ticks a second in /proc, on every Linux.
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; after it comes the state, and utime and stime are the 12th and 13th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS))
}

/// The JSON of a file, once it exists: `part`, which logs to `log`, writes it when it is ready.
pub async fn until_written(path: &Path, part: &str, log: &Path) -> Result<serde_json::Value> {
    until(part, log, || std::fs::read(path).ok()).await
}

/// The ports of a server, once it listens.
pub async fn ports(child: &Child, folder: &Path, log: &Path) -> Result<serde_json::Value> {
    let pid = child.pid;
    until("nats-server", log, || std::fs::read(ports_file(folder, pid)?).ok()).await
}

async fn until(part: &str, log: &Path, read: impl Fn() -> Option<Vec<u8>>) -> Result<serde_json::Value> {
    let mut patience = Patience::new(part, Some(log), READY_WITHIN);
    loop {
        if let Some(value) = read().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(value);
        }
        patience.wait(Duration::from_millis(10), "").await?;
    }
}

/// A NATS server with JetStream on free ports, its store in `dir`; its addresses for clients and of its
/// monitoring endpoint.
pub async fn nats_server(dir: &Path) -> Result<(Child, String, String)> {
    let program = tokio::task::spawn_blocking(locate::nats_server).await.map_err(anyhow::Error::from)??;
    let mut command = Command::new(program);
    command.args(["-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-js", "-sd"]).arg(dir);
    command.arg("--ports_file_dir").arg(dir);
    let log = dir.join("nats.log");
    let child = spawn(&command, &log).await?;
    let ports = ports(&child, dir, &log).await?;
    let address = |kind: &str| ports[kind][0].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
    Ok((child, address("nats"), address("monitoring")))
}

//! Programs that a benchmark starts: quiet, killed when dropped, and known by the file they write when ready.

use agentforge_stack::{
    locate,
    patience::{Patience, ports_file},
};
use agentforge_terminal::{Failure, Result};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long anything may take to come up.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What failed, and why.
pub fn failed(what: &str, e: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{what}: {e}"))
}

/// Starts a program; what it says goes to `log`.
pub fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let program = command.as_std().get_program().to_owned();
    let failed = |e: std::io::Error| Failure::new(format!("cannot start {}: {e}", program.to_string_lossy()));
    let log = std::fs::File::create(log).map_err(failed)?;
    let err = log.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(log).stderr(err).kill_on_drop(true).spawn().map_err(failed)
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
    let pid = child.id().unwrap_or_default();
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
    let child = spawn(&mut command, &log)?;
    let ports = ports(&child, dir, &log).await?;
    let address = |kind: &str| ports[kind][0].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
    Ok((child, address("nats"), address("monitoring")))
}

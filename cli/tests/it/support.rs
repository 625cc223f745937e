//! Runs the binary and reads what it says.

use agentforge_harness::{Proc, eventually};
use serde_json::Value;
use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_agentforge");
/// Everything here is local; a loaded machine needs some patience.
pub const SOON: Duration = Duration::from_secs(60);

/// The services that `--without` takes, because jobs do not need them; the program that has them says which.
fn extras() -> Vec<String> {
    let said =
        said(Command::new(Path::new(BINARY).with_file_name("agentforge-stack")).arg("describe").output().unwrap());
    let stack = said.ok();
    let named = |list: &Value, key: &str, name: &str| {
        list.as_array().unwrap().iter().find(|one| one[key] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let without = named(&named(&stack["commands"], "name", "dev")["args"], "long", "without");
    without["values"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// For `--without`: every service that jobs do not need, except these.
pub fn extras_but(kept: &[&str]) -> String {
    extras().into_iter().filter(|name| !kept.contains(&name.as_str())).collect::<Vec<_>>().join(",")
}

/// What a run said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Stdout as one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in {:?}, stderr {:?}", self.out, self.err))
    }
    /// The last line of stdout as JSON: what a batch says of itself after its jobs.
    pub fn last(&self) -> Value {
        let line = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}, stderr {:?}", self.err))
    }
    /// Stdout as JSON, after checking that it succeeded.
    pub fn ok(&self) -> Value {
        assert_eq!(self.code, 0, "stdout {:?}, stderr {:?}", self.out, self.err);
        self.json()
    }
}

pub fn command() -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().stdin(Stdio::null());
    for key in ["PATH", "HOME", "TMPDIR"] {
        command.envs(std::env::var_os(key).map(|value| (key, value)));
    }
    command
}

pub fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is UTF-8");
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs it to its end, without a server.
pub fn agentforge<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Said {
    said(command().args(args).output().unwrap())
}

/// As [`agentforge`], with something on stdin.
pub fn agentforge_reads<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &str) -> Said {
    feed(command().args(args), input)
}

pub fn feed(command: &mut Command, input: &str) -> Said {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().ok();
    said(output)
}

/// `agentforge dev` in a folder of its own, on free ports.
pub struct Dev {
    pub process: Proc,
    pub ready: Value,
    pub ready_file: PathBuf,
}

impl Dev {
    /// Starts it with `--no-demo` and waits until it is ready.
    pub async fn start(home: &TempDir, more: &[&str]) -> Self {
        let args: Vec<&str> = ["--no-demo"].into_iter().chain(more.iter().copied()).collect();
        Self::start_with(home, &args, &[]).await
    }

    pub async fn start_with(home: &TempDir, more: &[&str], environment: &[(&str, &str)]) -> Self {
        // In the data directory, where the demo does not look.
        let ready_file = home.path().join("data/ready.json");
        let _ = std::fs::remove_file(&ready_file);
        // The folder it is started in is where the demo looks for files.
        let mut process = Proc::builder("/bin/sh")
            .args(["-c", "cd \"$0\" && exec \"$@\"", &home.path().to_string_lossy(), BINARY, "dev"])
            .args(["--data-dir", "data", "--port-base", "0", "--ready-file", &ready_file.to_string_lossy()])
            .args(more.iter().copied())
            .envs(environment.iter().copied())
            .start();
        let ready = eventually(SOON, "dev writes its ready file", || {
            assert!(process.is_running(), "dev ended early:\n{}", process.full_log());
            let seen = read_json(&ready_file);
            async move { seen }
        })
        .await;
        Self { process, ready, ready_file }
    }

    /// Runs a command against it with `--json`.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        said(self.command().args(args).output().unwrap())
    }

    pub fn command(&self) -> Command {
        let mut command = command();
        command
            .env("AGENTFORGE_SERVER", self.ready["services"]["orchestrator"]["grpc"].as_str().unwrap())
            .arg("--json");
        command
    }

    pub fn nats_pid(&self) -> u32 {
        pid(&self.ready["nats"]["pid"])
    }
}

pub fn read_json(path: &Path) -> Result<Value, String> {
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

pub fn pid(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap_or_else(|| panic!("{value} is no process id"))).unwrap()
}

/// Whether a process runs; one that waits to be reaped does not.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Waits until none of the processes runs.
pub async fn gone(pids: &[u32]) {
    eventually(SOON, "the processes are gone", || {
        let left: Vec<u32> = pids.iter().copied().filter(|pid| runs(*pid)).collect();
        async move { if left.is_empty() { Ok(()) } else { Err(format!("{left:?} still run")) } }
    })
    .await;
}

/// Sends SIGKILL to a process that this test did not start itself.
pub fn kill9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// The separate binaries; cargo builds them only when their packages are built too.
pub fn has_service_binaries() -> bool {
    // The stack says which others there are.
    are_built(&["stack", "orchestrator", "worker"])
        && are_built(&extras().iter().map(String::as_str).collect::<Vec<_>>())
}

/// Whether these services' binaries are built.
pub fn are_built(names: &[&str]) -> bool {
    let is_built = |name: &&str| Path::new(BINARY).with_file_name(format!("agentforge-{name}")).is_file();
    let built = names.iter().all(is_built);
    assert!(built || std::env::var("CI").is_err(), "CI=true forbids skipping: build the service binaries first");
    if !built {
        eprintln!("SKIPPED: the service binaries are not built");
    }
    built
}

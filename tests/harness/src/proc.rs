//! A program under test as a process of its own: start, wait until ready, signal, and its log on failure.

use crate::{
    child::{self, ChildHandle, Signal, Spec},
    eventually,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// Builds a [`Proc`]. The environment is empty but for PATH, HOME, TMPDIR and what is given, so that
/// a test means the same on every machine; `READY_FILE` is set.
pub struct ProcBuilder {
    program: PathBuf,
    args: Vec<String>,
    envs: Vec<(String, String)>,
}

/// A running program. Killed on drop and with the test process; its log is printed when the test fails.
pub struct Proc {
    child: ChildHandle,
    name: String,
    dir: TempDir,
}

impl ProcBuilder {
    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }
    /// Adds arguments behind the earlier ones.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.envs.push((key.into(), value.into()));
        self
    }
    /// Sets several variables of the environment.
    #[must_use]
    pub fn envs<K: Into<String>, V: Into<String>>(mut self, envs: impl IntoIterator<Item = (K, V)>) -> Self {
        self.envs.extend(envs.into_iter().map(|(k, v)| (k.into(), v.into())));
        self
    }

    /// Starts the program; it may not be ready yet.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(self) -> Proc {
        let name = self.program.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let dir = tempfile::Builder::new().prefix("agentforge-proc-").tempdir().expect("a temporary folder");
        let mut spec = Spec::new(&self.program, dir.path().join("log")).args(self.args);
        spec.clear_env = true;
        for key in ["PATH", "HOME", "TMPDIR"] {
            spec.envs.extend(std::env::var(key).map(|value| (key.to_owned(), value)));
        }
        let ready = dir.path().join("ready.json");
        spec.envs.push(("READY_FILE".into(), ready.to_string_lossy().into_owned()));
        spec.envs.extend(self.envs);
        let child = spec.start().unwrap_or_else(|e| panic!("start {}: {e}", self.program.display()));
        Proc { child, name, dir }
    }
}

impl Proc {
    /// A program by its path; see [`cargo_bin`] for one of this workspace.
    pub fn builder(program: impl Into<PathBuf>) -> ProcBuilder {
        ProcBuilder { program: program.into(), args: Vec::new(), envs: Vec::new() }
    }

    /// Waits for the ready file and gives its JSON.
    ///
    /// # Panics
    /// When the program ends or the deadline passes before; with the log.
    pub async fn ready(&mut self, deadline: Duration) -> serde_json::Value {
        let file = self.dir.path().join("ready.json");
        let (name, child) = (&self.name, &mut self.child);
        eventually(deadline, &format!("{name} writes its ready file"), || {
            if let Some(status) = child.try_status() {
                panic!("{name} ended before it was ready ({status}):\n{}", child.log());
            }
            let seen = std::fs::read(&file).map_err(|e| e.to_string());
            async move { serde_json::from_slice(&seen?).map_err(|e| e.to_string()) }
        })
        .await
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }
    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_status().is_none()
    }
    /// The last lines that the program wrote to stdout and stderr.
    pub fn log(&self) -> String {
        self.child.log()
    }
    /// Everything that the program wrote so far.
    pub fn full_log(&self) -> String {
        std::fs::read(self.log_path()).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill9(&mut self) {
        self.child.kill9();
    }
    /// Sends a signal; nothing happens when the program has ended.
    pub fn signal(&mut self, signal: Signal) {
        self.child.signal(signal);
    }
    /// SIGSTOP, until no thread runs.
    pub fn pause(&mut self) {
        self.child.pause();
    }
    /// Lets the process run again after a pause, by SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, and the exit code as a shell shows it (128 + signal when one ended it).
    ///
    /// # Panics
    /// When the program still runs at the deadline.
    pub async fn sigterm(&mut self, deadline: Duration) -> i32 {
        self.signal(Signal::TERM);
        self.wait(deadline).await
    }

    /// Waits for the program to end by itself; the exit code as a shell shows it.
    ///
    /// # Panics
    /// When the program still runs at the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> i32 {
        match self.child.wait(deadline).await {
            Some(status) => child::code(status),
            None => panic!("{} still runs after {deadline:?}", self.name),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        child::print_if_failing(&self.name, &self.log_path());
    }
}

/// A binary of this workspace, from the folder where the running test was built.
///
/// # Panics
/// When it was not built: cargo builds binaries of other packages only when asked.
pub fn cargo_bin(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().skip(1).find(|p| p.file_name().is_some_and(|n| n != "deps"));
    let path = folder.unwrap_or(Path::new(".")).join(name);
    assert!(path.is_file(), "{} is not built: run `cargo build` for its package first", path.display());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: &str = "/bin/sh";

    #[tokio::test]
    async fn a_program_is_ready_and_its_exit_code_is_told() {
        let script = r#"trap 'exit 7' TERM; echo "{\"a\":\"$GIVEN\"}" > "$READY_FILE.tmp"; mv "$READY_FILE.tmp" "$READY_FILE"; while :; do sleep 0.02; done"#;
        let mut p = Proc::builder(SHELL).args(["-c", script]).env("GIVEN", "b").start();
        let ready = p.ready(Duration::from_secs(10)).await;
        assert_eq!(ready["a"], "b");
        assert!(p.is_running());
        assert_eq!(p.sigterm(Duration::from_secs(10)).await, 7);
        assert!(!p.is_running());
    }

    #[tokio::test]
    #[should_panic(expected = "no luck today")]
    async fn one_that_ends_early_shows_its_log() {
        let mut p = Proc::builder(SHELL).args(["-c", "echo no luck today; exit 3"]).start();
        p.ready(Duration::from_secs(10)).await;
    }

    #[tokio::test]
    async fn nothing_of_the_callers_environment_leaks_in() {
        let mut p = Proc::builder("/usr/bin/env").start();
        assert_eq!(p.wait(Duration::from_secs(10)).await, 0);
        assert!(!p.full_log().contains("CARGO"), "{}", p.full_log());
    }
}

//! `exec`: a command declared in the tools file, JSON on standard input, JSON on standard output.
//!
//! Never a shell: argv goes to the kernel as declared, and a job's arguments reach the command only on standard input.
//! The command and everything that it started are killed when it ends, when the run is stopped, when its output passes
//! the limit and when the worker dies: its launcher ensures that, even for processes that left the group by `setsid`.

mod cgroup;
mod confine;
mod launcher;
mod plan;
mod process;
mod pump;
mod remove;
mod spec;
mod temp;
mod watch;

use super::{Tool, ToolContext, ToolError, ToolOutput};
use agentforge_proto::bus::ErrorClass;
use async_trait::async_trait;
use cgroup::Cgroup;
pub(crate) use cgroup::CgroupRoot;
use launcher::Said;
pub use launcher::enable_launcher;
pub(crate) use launcher::{confinement, is_enabled as is_launcher_enabled};
use plan::Plan;
use process::{Group, Spawner};
use pump::{Pump, Pumped};
use serde_json::value::RawValue;
pub use spec::{Files, Limits, Spec, User};
use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, OnceLock},
    time::Duration,
};
pub(crate) use temp::TempRoot;

/// Between SIGTERM and SIGKILL. Short enough to fit the time that a stopped run is given.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// For reading what a command wrote before it ended; longer waits are for a process that escaped.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// `EX_TEMPFAIL` of sysexits.h: the command asks for another attempt.
const EXIT_TRY_AGAIN: i32 = 75;

/// A declared command as a tool.
#[derive(Debug)]
pub struct Exec {
    spec: Spec,
    starter: Starter,
}

/// Starts the commands of a worker, from one thread that all its tools share. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Starter {
    spawner: Arc<OnceLock<Spawner>>,
    temp: Option<Arc<TempRoot>>,
    cgroup: Option<Arc<CgroupRoot>>,
    commands_max: usize,
}

impl Starter {
    /// For a worker that runs `commands_max` commands at once, whose temporary directories are below `temp` and whose
    /// cgroups are below `cgroup`.
    pub(crate) fn new(temp: Option<TempRoot>, cgroup: Option<CgroupRoot>, commands_max: usize) -> Self {
        Self { spawner: Arc::default(), temp: temp.map(Arc::new), cgroup: cgroup.map(Arc::new), commands_max }
    }

    fn plan(&self, spec: &Spec, places: &Places) -> Plan {
        Plan::of(spec, places.temp_dir.as_deref(), places.cgroup.as_deref(), self.commands_max)
    }

    /// Those of a command's launcher; none without one.
    fn places(&self, by_launcher: bool) -> Places {
        Places {
            temp_dir: self.temp.as_deref().filter(|_| by_launcher).map(TempRoot::next),
            cgroup: self.cgroup.as_deref().filter(|_| by_launcher).map(CgroupRoot::next),
        }
    }
}

/// What a launcher makes for its command, and removes.
#[derive(Debug, Default)]
struct Places {
    temp_dir: Option<PathBuf>,
    cgroup: Option<PathBuf>,
}

impl Places {
    /// Removes what a launcher that was killed has left, and kills what still runs there.
    async fn clear(self) {
        if let Some(path) = self.cgroup.filter(|path| path.exists()) {
            // Blocking for a moment; not longer than the kernel takes to end processes.
            let _ = tokio::task::spawn_blocking(move || Cgroup::end_abandoned(&path)).await;
        }
        if let Some(dir) = self.temp_dir.filter(|dir| dir.exists()) {
            remove::clear(&dir);
        }
    }
}

impl Exec {
    /// The tool; nothing is started before the first run.
    pub fn new(spec: Spec, starter: Starter) -> Self {
        Self { spec, starter }
    }
}

/// Why a command was no longer waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Exited,
    Stopped,
    TimedOut(Duration),
    TooMuchOutput,
}

#[async_trait]
impl Tool for Exec {
    async fn run(&self, ctx: &ToolContext, args: &RawValue) -> Result<ToolOutput, ToolError> {
        let spawner = self.starter.spawner.get_or_init(Spawner::start);
        let by_launcher = launcher::is_enabled();
        // A launcher limits the command, not itself.
        let memory_max = self.spec.limits.memory_max_bytes.filter(|_| !by_launcher);
        let places = self.starter.places(by_launcher);
        let (command, word) = self.command(ctx, by_launcher, &places);
        let mut group = spawner.spawn(command, by_launcher, memory_max).await.map_err(of_spawn)?;
        let mut pump = Pump::new(group.take_pipes(), args.get().as_bytes(), self.spec.output_max_bytes);
        let end = self.attend(ctx, &mut group, &mut pump).await;
        if matches!(end, End::Stopped | End::TimedOut(_)) {
            group.terminate();
            // It may still write while it cleans up; a full pipe would keep it from ending.
            let ended = async { tokio::join!(group.ended(), pump.run()) };
            let _ = tokio::time::timeout(TERM_GRACE, ended).await;
        }
        let status = group.finish().await.map_err(|e| ToolError::transient(format!("waiting for the command: {e}")))?;
        let end = match tokio::time::timeout(DRAIN_MAX, pump.run()).await {
            Ok(Pumped::TooMuchOutput) if end == End::Exited => End::TooMuchOutput,
            _ => end,
        };
        places.clear().await;
        let (output, mut tail) = pump.into_parts();
        let said = word.and_then(|word| launcher::said(status, &mut tail, &word));
        match said.filter(|_| end == End::Exited) {
            Some(Said::NotStarted(error)) => return Err(of_spawn(error)),
            Some(Said::Exceeded(limit)) => {
                return Err(ToolError::runtime(format!("the command was killed: {limit}")).log_tail(tail));
            }
            None => {}
        }
        let is_confined = by_launcher && self.spec.files != Files::Any;
        verdict(end, status, output, self.spec.output_max_bytes).map_err(|mut error| {
            if is_confined && tail.contains("Permission denied") {
                error
                    .message
                    .push_str("; files that `read` and `write` in the tools file do not name are closed to it");
            }
            error.log_tail(tail)
        })
    }
}

impl Exec {
    /// The command, or its launcher with the word by which that speaks.
    fn command(
        &self,
        ctx: &ToolContext,
        by_launcher: bool,
        places: &Places,
    ) -> (tokio::process::Command, Option<String>) {
        use std::os::unix::process::CommandExt;
        let mut command = if by_launcher {
            launcher::command(&self.spec, &self.starter.plan(&self.spec, places))
        } else {
            let mut command = std::process::Command::new(&self.spec.program);
            command.arg0(&self.spec.argv[0]).args(&self.spec.argv[1..]);
            command
        };
        command
            .env_clear()
            .envs(self.spec.env.iter().map(|(k, v)| (k, v)))
            .env("AGENTFORGE_JOB", ctx.job.to_string())
            .env("AGENTFORGE_ATTEMPT", ctx.attempt.to_string())
            .env("AGENTFORGE_DELIVERY", ctx.delivery.to_string());
        if let Some(turn) = ctx.scheduled_at {
            command.env("AGENTFORGE_SCHEDULED_AT", turn.timestamp().to_string());
        }
        if let Some(dir) = &self.spec.working_dir {
            command.current_dir(dir);
        }
        let word = by_launcher.then(|| launcher::with_word(&mut command));
        (command.into(), word)
    }

    async fn attend(&self, ctx: &ToolContext, group: &mut Group, pump: &mut Pump<'_>) -> End {
        // The job's own timeout reaches us through `cancel`.
        let limit = self.spec.timeout.unwrap_or(Duration::MAX);
        let timer = tokio::time::sleep(limit.min(Duration::from_secs(365 * 24 * 60 * 60)));
        tokio::pin!(timer);
        let mut at_end = false;
        loop {
            tokio::select! {
                biased;
                () = ctx.cancel.cancelled() => return End::Stopped,
                () = group.ended() => return End::Exited,
                pumped = pump.run(), if !at_end => match pumped {
                    Pumped::TooMuchOutput => return End::TooMuchOutput,
                    Pumped::AtEnd => at_end = true,
                },
                () = &mut timer => return End::TimedOut(limit),
            }
        }
    }
}

/// What the end of a command means. Pure: all facts come in.
fn verdict(end: End, status: ExitStatus, output: Vec<u8>, output_max: usize) -> Result<ToolOutput, ToolError> {
    match end {
        End::Stopped => return Err(ToolError::runtime("the command was stopped")),
        End::TimedOut(limit) => {
            let message = format!("the command ran longer than its timeout of {limit:?} in the tools file");
            return Err(ToolError::new(ErrorClass::Timeout, message));
        }
        End::TooMuchOutput => {
            return Err(ToolError::runtime(format!(
                "the command printed more than {output_max} bytes and was killed; \
                 output_max in the tools file, or EXEC_OUTPUT_MAX, raises the limit"
            )));
        }
        End::Exited => {}
    }
    match (status.code(), status.signal()) {
        (Some(0), _) => of_output(output),
        (Some(EXIT_TRY_AGAIN), _) => Err(ToolError::transient("the command asked for another attempt (exit code 75)")),
        (Some(code), _) => Err(ToolError::runtime(format!("the command ended with exit code {code}"))),
        (None, Some(signal)) => {
            Err(ToolError::runtime(format!("the command was killed by signal {signal} ({})", signal_name(signal))))
        }
        (None, None) => Err(ToolError::runtime("the command ended in an unknown way")),
    }
}

fn of_output(output: Vec<u8>) -> Result<ToolOutput, ToolError> {
    let text = String::from_utf8(output).map_err(|_| ToolError::runtime("the command's output is not UTF-8"))?;
    if text.trim().is_empty() {
        return Ok(ToolOutput::raw(RawValue::NULL.to_owned()));
    }
    let start: String = text.chars().take(80).collect();
    RawValue::from_string(text)
        .map(ToolOutput::raw)
        .map_err(|e| ToolError::runtime(format!("the command's output is not JSON ({e}); it begins with {start:?}")))
}

/// Not starting may pass by itself when the machine is short of something.
fn of_spawn(error: std::io::Error) -> ToolError {
    use std::io::ErrorKind;
    let class = match error.kind() {
        ErrorKind::NotFound => ErrorClass::Runtime,
        ErrorKind::PermissionDenied => ErrorClass::Permission,
        _ => ErrorClass::Transient,
    };
    ToolError::new(class, format!("the command did not start: {error}"))
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => "another signal",
    }
}

#[cfg(test)]
mod tests;

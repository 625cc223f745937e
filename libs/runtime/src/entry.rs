//! The one `main` of every service: arguments, settings, globals, signals, exit code.
//!
//! Settings are read and checked before anything is opened. Exit codes: 0 after a clean drain, 1
//! for a failure, 64 for wrong settings or arguments, 130 after a second signal.

use crate::error_text::chain;
use crate::ready_file::remove_ready_file;
use crate::{Host, Member, Process, Runtime, Service, Signals, check_log_level, run};
use agentforge_config::{Effective, Env, Faults, Reader, Setting, Source, common};
use agentforge_metrics::Metric;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long the last traces may take to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// How long blocking work may hold up the end of the process after the drain.
const LAST: Duration = Duration::from_secs(1);

/// The whole of a service's `main`: `fn main() -> ExitCode { agentforge_runtime::main::<Worker>() }`.
pub fn main<S: Service>() -> ExitCode {
    ExitCode::from(main_from::<S>(std::env::args_os().skip(1), &Env))
}

/// [`main`] with given arguments (without the program's name) and settings; returns the exit code.
/// Takes over the process's globals and signals.
pub fn main_from<S: Service>(arguments: impl IntoIterator<Item = OsString>, source: &dyn Source) -> u8 {
    let action = match Action::parse(arguments) {
        Ok(action) => action,
        Err(problem) => {
            complain(&format!("{}: {problem}; try --help\n", S::NAME));
            return agentforge_config::EXIT_CODE;
        }
    };
    match action {
        Action::Help => tell(&help::<S>()),
        Action::Version => tell(&format!("agentforge-{} {}\n", S::NAME, S::VERSION)),
        Action::CheckConfig => match configure::<S>(source, true) {
            Ok(read) => {
                read.unread.iter().for_each(|key| complain(&format!("{}: {key} {UNREAD}\n", S::NAME)));
                read.effective.concerns().iter().for_each(|text| complain(&format!("{}: {text}\n", S::NAME)));
                tell(&read.effective.to_string())
            }
            Err(faults) => refuse::<S>(&faults),
        },
        Action::Run => match configure::<S>(source, false) {
            Ok(read) => start::<S>(read),
            Err(faults) => refuse::<S>(&faults),
        },
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Run,
    Help,
    Version,
    CheckConfig,
}

impl Action {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut action = Self::Run;
        for argument in arguments {
            action = match argument.to_str() {
                Some("--help" | "-h") => return Ok(Self::Help),
                Some("--version" | "-V") => return Ok(Self::Version),
                Some("--check-config") => Self::CheckConfig,
                _ => return Err(format!("unknown argument {:?}", argument.to_string_lossy())),
            };
        }
        Ok(action)
    }
}

/// What is said of a variable that begins like our settings and is none.
const UNREAD: &str = "is not a setting of this service and is not read";

/// Settings that may be used.
struct Read<C> {
    config: C,
    effective: Effective,
    /// Variables that look like settings, but are not read.
    unread: Vec<String>,
}

/// Reads the settings, the same way for a check and for a start. A variable that is a misspelt setting is a fault. A
/// check also reports faults that a start tolerates.
fn configure<S: Service>(source: &dyn Source, is_check: bool) -> Result<Read<S::Config>, Faults> {
    let mut reader = Reader::new(source);
    let settings = S::settings();
    let declared = || settings.iter().flat_map(|(_, group)| group.iter());
    let files: Vec<String> = declared().filter_map(Setting::file_key).collect();
    let names: Vec<&str> = declared().map(|setting| setting.key).chain(files.iter().map(String::as_str)).collect();
    let unknown = agentforge_config::unknown(&source.keys(), &names);
    for (key, problem) in unknown.misspelt {
        reader.fault(&key, problem);
    }
    let config = S::read_config(&mut reader);
    if let Err(problem) = check_log_level(&S::common(&config).log_level) {
        reader.fault(common::LOG_LEVEL.key, problem);
    }
    if is_check {
        S::check_config(&config, &mut reader);
    }
    reader.finish().map(|effective| Read { config, effective, unread: unknown.unread })
}

fn refuse<S: Service>(faults: &Faults) -> u8 {
    complain(&format!("{}: the settings are not right, nothing was started\n{faults}\n", S::NAME));
    agentforge_config::EXIT_CODE
}

fn help<S: Service>() -> String {
    let settings = S::settings();
    let groups: Vec<(&str, &[Setting])> = settings.iter().map(|(name, group)| (*name, group.as_slice())).collect();
    format!(
        "agentforge-{name} {version}\n\nUsage: agentforge-{name} [--check-config | --help | --version]\n\n\
         --check-config  checks the settings and names misspelt ones, prints the effective ones (secrets hidden)\n\
         \u{20}                and exits\n\n\
         Settings are environment variables. A secret can be in a file instead, named by NAME_FILE.\n\n{groups}",
        name = S::NAME,
        version = S::VERSION,
        groups = agentforge_config::help(&groups),
    )
}

/// Half of the cores: the rest is for the threads of the database, for tools, and for the NATS server that often runs
/// on the same machine. On a small machine more threads wake each other for nothing.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

fn start<S: Service>(read: Read<S::Config>) -> u8 {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name(S::NAME);
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(worker_threads());
    }
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("{}: cannot start the async runtime: {error}\n", S::NAME));
            return 1;
        }
    };
    let code = runtime.block_on(serve::<S>(read));
    runtime.shutdown_timeout(LAST);
    code
}

async fn serve<S: Service>(read: Read<S::Config>) -> u8 {
    let Read { config, effective, unread } = read;
    let common = S::common(&config).clone();
    let metrics: Vec<&[Metric]> = S::metrics();
    let process = Process::init_as(S::NAME, &common, &metrics);
    info!(version = S::VERSION, env = common.env, mission = common.mission, site = common.site, "starting");
    for variable in unread {
        warn!(variable, "{UNREAD}");
    }
    for concern in effective.concerns() {
        warn!("{concern}");
    }
    let outcome = build_and_run::<S>(config, &process).await;
    process.flush(FLUSH).await;
    u8::from(outcome.is_err())
}

/// Logs every failure itself.
async fn build_and_run<S: Service>(config: S::Config, process: &Process) -> Result<(), ()> {
    let common = S::common(&config).clone();
    let signals = Signals::install().map_err(|error| error!(error = %chain(&error), "cannot start"))?;
    if let Some(path) = &common.ready_file {
        remove_ready_file(path);
    }
    let stop = CancellationToken::new();
    let runtime = Runtime::new(S::NAME, stop.clone(), common.shutdown_grace, process);
    let supervisor = runtime.supervisor().clone();
    let deadline = || tokio::time::Instant::now() + common.shutdown_grace;
    let member = tokio::select! {
        built = Member::build::<S>(config, runtime) => {
            built.map_err(|error| error!(error = %chain(error.as_ref()), "cannot start"))?
        }
        signal = signals.first() => {
            info!(signal, "stopping before the start was complete");
            stop.cancel();
            return supervisor.drain(deadline()).await.map_err(|error| error!(error = %chain(&error), "stopped with a failure"));
        }
    };
    run(vec![member], Host::new(&common, stop, signals)).await.map_err(drop)
}

/// Writes to stdout. A reader that went away is not our failure.
fn tell(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    0
}

/// Writes to stderr, before there is a log.
fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let cases: [(&[&str], Result<Action, ()>); 7] = [
            (&[], Ok(Action::Run)),
            (&["--help"], Ok(Action::Help)),
            (&["-V"], Ok(Action::Version)),
            (&["--check-config"], Ok(Action::CheckConfig)),
            (&["--check-config", "--help"], Ok(Action::Help)),
            (&["--verbose"], Err(())),
            (&["run"], Err(())),
        ];
        for (given, expected) in cases {
            let parsed = Action::parse(given.iter().map(OsString::from));
            assert_eq!(parsed.map_err(drop), expected, "{given:?}");
        }
    }
}

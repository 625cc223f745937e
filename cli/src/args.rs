//! The command line: every command, option and example. Parsing only; nothing here acts.
//!
//! Values become real types here (durations, moments, URLs), so that a typo is a usage error (exit
//! code 2) before anything is sent.

use crate::{bench, commands, dev};
use agentforge_config::parse_duration;
use clap::{Parser, Subcommand, builder::styling};
use jiff::Timestamp;
use std::{ffi::OsString, time::Duration};

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default())
    .placeholder(styling::AnsiColor::Cyan.on_default());

/// Submit jobs, follow them, and run the whole backbone on your machine.
#[derive(Debug, Parser)]
#[command(
    name = "agentforge",
    version,
    styles = STYLES,
    max_term_width = 110,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  agentforge dev                                          start everything here
  agentforge job submit echo '{\"hello\":\"world\"}' --wait   run a job, print its result
  agentforge job list --state running                     what runs now
  agentforge dlq redrive --all --rate 20                  put dead jobs back, 20 per second

Exit codes: 0 ok, 1 failed, 2 wrong command line, 3 the awaited job did not succeed."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The orchestrator's gRPC address
    #[arg(long, global = true, env = "AGENTFORGE_SERVER", value_name = "URL", default_value = "http://127.0.0.1:50051", value_parser = server, help_heading = "Global options")]
    pub server: String,
    /// Bearer token; better given by the environment, where other users cannot see it
    #[arg(long, global = true, env = "AGENTFORGE_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = token, help_heading = "Global options")]
    pub token: Option<Token>,
    /// Print JSON, one document a line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// How long one request may take; waiting for jobs is not counted
    #[arg(long, global = true, env = "AGENTFORGE_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Global options")]
    pub request_timeout: Duration,
}

/// A bearer token that no `Debug` shows.
#[derive(Clone)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start NATS and every service on this machine; with --edge a site and its hub
    Dev(dev::Args),
    /// Cut and restore the link of `agentforge dev --edge`
    #[command(subcommand)]
    Link(commands::link::Command),
    /// Submit, list, follow and cancel jobs
    #[command(subcommand)]
    Job(commands::job::Command),
    /// What waits and runs in each queue, and who serves it
    #[command(subcommand)]
    Queue(commands::queue::Command),
    /// Look at dead letters, put them back, discard them
    #[command(subcommand)]
    Dlq(commands::dlq::Command),
    /// Retries and redrives that continue without the command that started them
    #[command(subcommand)]
    Operation(commands::operation::Command),
    /// Jobs made by the clock
    #[command(subcommand)]
    Schedule(commands::schedule::Command),
    /// The workers that announced themselves
    #[command(subcommand)]
    Agent(commands::agent::Command),
    /// How a running syncdaemon gets on
    #[command(subcommand)]
    Sync(commands::sync::Command),
    /// Read a site's ledger, and hold it against the hub's stream
    #[command(subcommand)]
    Ledger(commands::ledger::Command),
    /// Webhooks: endpoints, attempts, dead letters
    #[command(subcommand)]
    Webhook(commands::webhook::Command),
    /// Measure this installation against its floor
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Answers webhooks and counts them
    #[command(hide = true)]
    WebhookSink(crate::sink::Args),
    /// Make a backlog of jobs, and measure how it drains
    #[command(subcommand)]
    Backlog(commands::backlog::Command),
    /// Put markers and zones on the live picture, and follow it
    #[command(subcommand)]
    Marker(commands::marker::Command),
    /// Ask an installation whether it does its work
    Verify(commands::verify::Args),
    /// Save the orchestrator's database to a file
    Backup(commands::backup::BackupArgs),
    /// Bring a saved database back
    Restore(commands::backup::RestoreArgs),
    /// The recording rules and alerts of this version
    #[command(subcommand)]
    Rules(commands::rules::Command),
    /// Every setting of every service
    Settings(commands::settings::SettingsArgs),
    /// Every metric of every service
    #[command(hide = true)]
    MetricsCatalogue(commands::settings::MetricsArgs),
    /// The REST API as an OpenAPI document
    #[command(hide = true)]
    Openapi,
    /// Print a completion script for your shell
    Completions(CompletionsArgs),
    /// Started often, by programs.
    #[command(flatten)]
    Inner(Inner),
}

/// What this program starts itself as. Parsed without the rest of the command line: building all of
/// that takes longer than the work of an example tool.
#[derive(Debug, Subcommand)]
pub enum Inner {
    /// Tools for trying out `exec`
    #[command(subcommand, hide = true)]
    ExampleTool(commands::example_tool::Command),
    /// The clients of `bench tactical`
    #[command(hide = true)]
    BenchLoad(bench::tactical::load::Args),
    /// The floor of `bench tactical`
    #[command(hide = true)]
    BenchFloor(bench::tactical::floor::Args),
    /// Becomes another program that dies with its parent
    #[command(hide = true)]
    RunChild(dev::child::RunChildArgs),
}

/// The command line when it is an inner one.
#[derive(Debug, Parser)]
#[command(name = "agentforge")]
pub struct InnerCli {
    /// What to do.
    #[command(subcommand)]
    pub command: Inner,
}

impl InnerCli {
    /// Whether the first argument asks for one.
    pub fn is_asked_for() -> bool {
        const ALL: [&str; 4] = ["example-tool", "run-child", "bench-load", "bench-floor"];
        std::env::args_os().nth(1).is_some_and(|first| ALL.iter().any(|name| first == *name))
    }
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Jobs a second and latency, beside raw JetStream
    #[command(after_help = "\
Examples:
  agentforge bench jobs
  agentforge bench jobs --json > bench.json")]
    Jobs(bench::Args),
    /// Processor time a job with metrics and traces, and without
    #[command(after_help = "\
Examples:
  agentforge bench cost
  agentforge bench cost --part traces --sample 1 --json > bench-cost.json")]
    Cost(bench::cost::Args),
    /// Events to many clients of the tactical API, beside bare writing
    #[command(after_help = "\
Examples:
  agentforge bench tactical
  agentforge bench tactical --clients 2000 --rates 50 --channels ws --seconds 20 --json > bench-tactical.json")]
    Tactical(bench::tactical::Args),
    /// Scrapes of the NATS exporter, beside fetching the same bytes
    #[command(after_help = "\
Examples:
  agentforge bench exporter
  agentforge bench exporter --consumers 1000 --memory-scrapes 1000 --json > bench-exporter.json")]
    Exporter(bench::exporter::Args),
    /// Files a second through the syncdaemon, beside raw publishing
    #[command(after_help = "\
Examples:
  agentforge bench sync
  agentforge bench sync --small 50000 --json > bench-sync.json")]
    Sync(bench::sync::Args),
    /// Events a second to webhooks, beside bare forwarding
    #[command(after_help = "\
Examples:
  agentforge bench webhooks
  agentforge bench webhooks --count 100000 --pairs 0 --json > bench-webhooks.json")]
    Webhooks(bench::webhooks::Args),
}

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(agentforge completions bash)
  agentforge completions zsh > ~/.zfunc/_agentforge
  agentforge completions fish > ~/.config/fish/completions/agentforge.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// The words of the command line, where `--wait 30s` becomes `--wait=30s`. The value is optional, so the parser takes
/// it only in that form; but what looks like a duration behind `--wait` is one: no tool and no argument does.
pub fn with_values_joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut is_over = false;
    for word in words {
        is_over |= word == "--";
        let is_value = word.to_str().is_some_and(|word| duration(word).is_ok());
        match joined.last_mut() {
            Some(last) if !is_over && is_value && last == "--wait" => {
                last.push("=");
                last.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// A duration such as `30s`, `5m`, `200ms`, `1h30m`; a bare number is seconds.
///
/// # Errors
/// What is wrong with it.
pub fn duration(s: &str) -> Result<Duration, String> {
    parse_duration(s).map_err(|e| format!("{e}; write it like 30s, 5m, 1h30m"))
}

/// A moment in the past: `2h` is so long ago, else RFC 3339.
pub fn since(s: &str) -> Result<Timestamp, String> {
    match duration(s) {
        Ok(ago) => Timestamp::now().checked_sub(ago).map_err(|_| "is too long ago".to_owned()),
        Err(_) => s.parse().map_err(|_| "is not a time such as 2h (ago) or 2030-01-31T08:00:00Z".to_owned()),
    }
}

/// A moment to come. What counts from now is sent as it was given, so that a submission under a key is the same
/// when it is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At this moment.
    At(Timestamp),
    /// So long from now.
    In(Duration),
}

/// A moment to come: RFC 3339, or `+10m` for so long from now.
///
/// # Errors
/// What is wrong with it.
pub fn when(s: &str) -> Result<When, String> {
    const FORM: &str = "write it like 2030-01-31T08:00:00Z, or +10m for ten minutes from now";
    match s.strip_prefix('+') {
        Some(later) => {
            let by = parse_duration(later).map_err(|e| format!("{e}; {FORM}"))?;
            Timestamp::now().checked_add(by).map_err(|_| format!("is too far away; {FORM}"))?;
            Ok(When::In(by))
        }
        None => s.parse().map(When::At).map_err(|_| format!("is not a moment; {FORM}")),
    }
}

/// `key=value`; the key is not empty.
///
/// # Errors
/// What is wrong with it.
pub fn label(s: &str) -> Result<(String, String), String> {
    match s.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not a label; write it like team=blue".to_owned()),
    }
}

/// As [`label`], but kept as it was written.
///
/// # Errors
/// What is wrong with it.
pub fn label_text(s: &str) -> Result<String, String> {
    label(s).map(|_| s.to_owned())
}

fn server(s: &str) -> Result<String, String> {
    let url = if s.contains("://") { s.to_owned() } else { format!("http://{s}") };
    let parsed: tonic::transport::Uri =
        url.parse().map_err(|_| "is not a URL like http://127.0.0.1:50051".to_owned())?;
    match (parsed.scheme_str(), parsed.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(url),
        _ => Err("is not a URL like http://127.0.0.1:50051".to_owned()),
    }
}

/// A bearer token or another secret of printable characters.
///
/// # Errors
/// What is wrong with it.
pub fn token(s: &str) -> Result<Token, String> {
    let printable = s.bytes().all(|b| b.is_ascii_graphic());
    if printable && !s.is_empty() {
        Ok(Token(s.to_owned()))
    } else {
        Err("is empty or has characters no token has".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn moments_are_absolute_or_from_now() {
        let minute = Duration::from_secs(60);
        let at = |text: &str| When::At(text.parse().unwrap());
        for (text, wanted) in [
            ("+10m", When::In(10 * minute)),
            ("+1h30m", When::In(90 * minute)),
            ("2026-03-01T08:00:00+01:00", at("2026-03-01T07:00:00Z")),
        ] {
            assert_eq!(when(text).unwrap(), wanted);
        }
        for bad in ["", "+", "10m", "tomorrow", "+10 parsecs", "+36500d"] {
            assert_eq!(when(bad).is_err(), bad != "+36500d", "{bad}");
        }
        let hour_ago = since("1h").unwrap();
        assert!((3_590..=3_610).contains(&(Timestamp::now().as_second() - hour_ago.as_second())));
        assert_eq!(since("2026-03-01T07:00:00Z").unwrap(), "2026-03-01T07:00:00Z".parse().unwrap());
        assert!(since("yesterday").is_err() && since("").is_err());
    }

    #[test]
    fn a_wait_takes_its_duration_with_and_without_an_equals_sign() {
        let joined = |words: &[&str]| with_values_joined(words.iter().map(OsString::from));
        assert_eq!(
            joined(&["job", "get", "ID", "--wait", "30s", "--json"]),
            ["job", "get", "ID", "--wait=30s", "--json"]
        );
        assert_eq!(joined(&["submit", "--wait", "5", "echo"]), ["submit", "--wait=5", "echo"]);
        for words in [
            &["submit", "--wait", "echo", "{}"][..],
            &["a", "--wait"],
            &["a", "--", "--wait", "5s"],
            &["--wait=1s", "5s"],
        ] {
            assert_eq!(joined(words), words);
        }
    }

    #[test]
    fn a_server_may_be_written_without_scheme() {
        assert_eq!(server("localhost:50051").unwrap(), "http://localhost:50051");
        assert_eq!(server("https://forge.example").unwrap(), "https://forge.example");
        for bad in ["", "ftp://x", "http://", "a b"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let cli = Cli::try_parse_from(["agentforge", "--token", "sesame", "agent", "list"]).unwrap();
        assert!(!format!("{cli:?}").contains("sesame"));
    }
}

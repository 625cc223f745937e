//! The command line: options that every command has, and which command is whose.
//!
//! Parsing and dispatch only; each module has the arguments of its own commands and runs them.

use crate::{alerts, artifact::Artifacts, bundle, contract, global::Global, manifests, schemas, seed, trend};
use agentforge_terminal::{Output, Result, STYLES, describe};
use clap::{CommandFactory, Parser, Subcommand};

/// Prove that a change to alerts, contracts, artifacts or manifests is safe.
#[derive(Debug, Parser)]
#[command(
    name = "agentforge-governance",
    version,
    styles = STYLES,
    max_term_width = 110,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 ok, 1 a gate failed, 2 wrong command line, 3 the input is broken."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every alert has an entry that says what it is for; changes are counted
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// Compare contracts, judge versions, keep the history, write badges and a page
    Contract(contract::Args),
    /// Checksums and signatures of the artifacts
    Bundle(bundle::Args),
    /// Check manifests before a cluster sees them
    Manifests(manifests::Args),
    /// Print the JSON Schemas of every artifact, or write them to a directory
    #[command(after_help = "\
Examples:
  agentforge governance schemas
  agentforge governance schemas --write docs/schemas")]
    Schemas(schemas::Args),
    /// Measure what containers and processes use, and write it for Prometheus
    #[command(after_help = "\
Examples:
  agentforge governance trend --jsonl usage.jsonl --prom usage.prom
  agentforge governance trend --jsonl usage.jsonl --prom usage.prom --pid api=4711 --hist-cpu 0,10,25,50,75,90,100")]
    Trend(trend::Args),
    /// Call what is called too rarely to be measured, a few times
    #[command(after_help = "\
Examples:
  agentforge seed --dry-run --target orchestrator=http://127.0.0.1:8080/v1/queues
  agentforge seed --prometheus http://prometheus:9090 --targets targets.json
  agentforge governance seed --dry-run --targets targets.json")]
    Seed(seed::Args),
    /// The commands and options of this program as JSON
    #[command(hide = true)]
    Describe,
}

/// Runs one command.
///
/// # Errors
/// A gate that failed, a wrong command line, or broken input; the exit code says which, see [`crate::exit`].
pub fn run(cli: Cli, out: Output) -> Result {
    let Cli { global, command } = cli;
    let artifacts = Artifacts::of(&global)?;
    match command {
        Command::Alerts(command) => alerts::run(command, &artifacts, out),
        Command::Contract(args) => contract::run(&args, &artifacts, out),
        Command::Bundle(args) => bundle::run(&args, &artifacts, out),
        Command::Manifests(args) => manifests::run(&args, &artifacts, out),
        Command::Schemas(args) => schemas::run(&args, &artifacts, out),
        Command::Trend(args) => trend::run(&args, &artifacts, out),
        Command::Seed(args) => seed::run(&args, out),
        Command::Describe => out.document(&describe(&Cli::command())),
    }
}

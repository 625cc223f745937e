//! `agentforge-bench`: measures the product against the raw limit, in the same run. `agentforge bench` becomes this program.
//!
//! Owns no service: it starts the real stack as separate processes in a directory of its own,
//! drives it through the public API, and checks exact delivery in the database afterwards.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod aggregate;
mod check;
mod cost;
mod exporter;
mod floor;
mod jobs;
mod latency;
mod machine;
mod process;
mod report;
mod stack;
mod sync;
mod tactical;
mod throughput;
mod webhooks;

use agentforge_terminal::{Global, Output, Result, STYLES, describe, ended, parse, runtime, usage};
use clap::{CommandFactory, Parser, Subcommand};
use std::{process::ExitCode, time::Duration};

/// Measure this installation against its floor.
#[derive(Debug, Parser)]
#[command(
    name = "agentforge-bench",
    version,
    styles = STYLES,
    max_term_width = 110,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Command {
    /// Jobs per second and latency, compared with raw JetStream
    #[command(after_help = "\
Examples:
  agentforge bench jobs
  agentforge bench jobs --json > bench.json")]
    Jobs(jobs::Args),
    /// Processor time per job with metrics and traces, and without
    #[command(after_help = "\
Examples:
  agentforge bench cost
  agentforge bench cost --part traces --sample 1 --json > bench-cost.json")]
    Cost(cost::Args),
    /// Events to many clients of the tactical API, compared with bare writing
    #[command(after_help = "\
Examples:
  agentforge bench tactical
  agentforge bench tactical --clients 2000 --rates 50 --channels ws --seconds 20 --json > bench-tactical.json")]
    Tactical(tactical::Args),
    /// Scrapes of the NATS exporter, compared with fetching the same bytes
    #[command(after_help = "\
Examples:
  agentforge bench exporter
  agentforge bench exporter --consumers 1000 --memory-scrapes 1000 --json > bench-exporter.json")]
    Exporter(exporter::Args),
    /// Files per second through the syncdaemon, compared with raw publishing
    #[command(after_help = "\
Examples:
  agentforge bench sync
  agentforge bench sync --small 50000 --json > bench-sync.json")]
    Sync(sync::Args),
    /// Events per second to webhooks, compared with bare forwarding
    #[command(after_help = "\
Examples:
  agentforge bench webhooks
  agentforge bench webhooks --count 100000 --pairs 0 --json > bench-webhooks.json")]
    Webhooks(webhooks::Args),
    /// Many reports as one: rolling averages, curves, and what became worse
    #[command(after_help = "\
Examples:
  agentforge bench aggregate 'bench-*.json'
  agentforge bench aggregate 'reports/*/bench.json' --json --md --fail")]
    Aggregate(aggregate::Args),
    /// The commands and options of this program as JSON
    #[command(hide = true)]
    Describe,
    /// The clients of `bench tactical`
    #[command(hide = true)]
    Load(tactical::load::Args),
    /// The floor of `bench tactical`
    #[command(hide = true)]
    Floor(tactical::floor::Args),
}

fn main() -> ExitCode {
    match parse::<Cli>("agentforge-bench", "agentforge bench") {
        Ok(cli) => {
            let out = Output { json: cli.global.json };
            ended(run(cli.command, out), out)
        }
        Err(said) => usage(&said),
    }
}

fn run(command: Command, out: Output) -> Result {
    // These need no async runtime.
    match &command {
        Command::Describe => return out.document(&describe(&Cli::command())),
        Command::Floor(args) => return tactical::floor::run(args),
        Command::Aggregate(args) => return aggregate::run(args, out),
        _ => {}
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Jobs(args) => jobs::run(args, out.json).await,
            Command::Cost(args) => cost::run(args, out.json).await,
            Command::Tactical(args) => tactical::run(args, out.json).await,
            Command::Exporter(args) => exporter::run(args, out.json).await,
            Command::Sync(args) => sync::run(args, out.json).await,
            Command::Webhooks(args) => webhooks::run(args, out.json).await,
            Command::Load(args) => tactical::load::run(args).await,
            Command::Describe | Command::Floor(_) | Command::Aggregate(_) => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

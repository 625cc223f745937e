//! The `agentforge` command: speaks to a running installation. Parses, runs one command, ends with its exit code.
//!
//! Every command is in `commands`; those that start or measure an installation are programs of their own, `elsewhere`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod commands;
mod context;
mod elsewhere;
mod trace;
mod words;

use agentforge_terminal::{Failure, Output, Result, ended, runtime, usage};
use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use context::Context;
use elsewhere::Elsewhere;
use std::{process::ExitCode, time::Duration};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if let Some((called, words)) = words.split_first()
        && let Some(elsewhere) = Elsewhere::of(words)
    {
        let json = words.iter().any(|word| word == "--json");
        return ended(Err(elsewhere.run(called)), Output { json });
    }
    match Cli::try_parse_from(args::with_values_joined(words.into_iter())) {
        Ok(cli) => {
            let out = Output { json: cli.global.json };
            ended(run(cli, out), out)
        }
        Err(said) => usage(&said),
    }
}

fn run(cli: Cli, out: Output) -> Result {
    let Cli { global, command } = cli;
    // These need no async runtime.
    match &command {
        Command::Completions(args) => return completions(args, out),
        Command::Rules(command) => return commands::rules::run(command, out),
        Command::Token(command) => return commands::token::run(command, out),
        Command::Keys(command) => return commands::keys::run(command, out),
        Command::Site(command) => return commands::site::run(command, out),
        _ => {}
    }
    global.trust()?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let context = || Ok::<_, Failure>(Context { client: global.client()?, out });
        match command {
            Command::Job(command) => commands::job::run(command, &context()?).await,
            Command::Queue(command) => commands::queue::run(command, &context()?).await,
            Command::Dlq(command) => commands::dlq::run(command, &context()?).await,
            Command::Operation(command) => commands::operation::run(command, &context()?).await,
            Command::Schedule(command) => commands::schedule::run(command, &context()?).await,
            Command::Agent(command) => commands::agent::run(command, &context()?).await,
            Command::Audit(command) => commands::audit::run(command, &context()?).await,
            Command::Sync(command) => commands::sync::run(command, out).await,
            Command::Ledger(command) => commands::ledger::run(command, out).await,
            Command::Webhook(command) => commands::webhook::run(command, out).await,
            Command::Backlog(command) => commands::backlog::run(command, &context()?).await,
            Command::Marker(command) => commands::marker::run(command, &global, out).await,
            Command::Verify(args) => commands::verify::run(args, &context()?).await,
            Command::Smoke(args) => commands::smoke::run(args, out).await,
            Command::Completions(_) | Command::Rules(_) | Command::Token(_) | Command::Keys(_) | Command::Site(_) => {
                Ok(())
            }
            // Only where the words could not be told apart before, as in `agentforge --json=x dev`.
            Command::Dev
            | Command::Link
            | Command::Bench
            | Command::Governance
            | Command::Seed
            | Command::WebhookSink
            | Command::Backup
            | Command::Restore
            | Command::User
            | Command::Settings
            | Command::MetricsCatalogue
            | Command::Openapi
            | Command::ExampleTool => Err(Failure::usage("put the command first, and options behind it")),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn completions(args: &args::CompletionsArgs, out: Output) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut elsewhere::completed(Cli::command()), "agentforge", &mut script);
    out.text(&String::from_utf8_lossy(&script))
}

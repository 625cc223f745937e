//! The `agentforge` command: parses, runs one command, tells the exit code.
//!
//! Every command is in `commands`, the all-in-one in `dev`, the benchmark in `bench`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bench;
mod client;
mod commands;
mod dev;
mod error;
mod output;
mod sink;
mod trace;
mod view;

use args::{BenchCommand, Cli, Command, Inner, InnerCli};
use clap::{CommandFactory, Parser};
use client::Client;
use commands::Context;
use error::{Failure, Result};
use output::{BOLD, Output, RED, styled};
use std::{io::Write, process::ExitCode, time::Duration};

fn main() -> ExitCode {
    // `dev` runs the worker in this process, and the worker starts commands by this program.
    agentforge_worker::enable_launcher();
    if InnerCli::is_asked_for() {
        return match InnerCli::try_parse() {
            Ok(cli) => ended(inner(cli.command), Output { json: false }),
            Err(told) => tell(&told),
        };
    }
    match Cli::try_parse_from(args::with_values_joined(std::env::args_os())) {
        Ok(cli) => {
            let out = Output { json: cli.global.json };
            ended(run(cli, out), out)
        }
        Err(told) => tell(&told),
    }
}

/// Help and version go to stdout and end with 0, usage errors to stderr with 2.
fn tell(told: &clap::Error) -> ExitCode {
    // A reader that went away is no failure.
    let _ = told.print();
    ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(error::USAGE))
}

fn ended(outcome: Result, out: Output) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, out);
            ExitCode::from(failure.exit)
        }
    }
}

fn inner(command: Inner) -> Result {
    match command {
        Inner::RunChild(args) => Err(dev::child::run_child(&args)),
        Inner::BenchLoad(args) => runtime()?.block_on(bench::tactical::load::run(args)),
        Inner::BenchFloor(args) => bench::tactical::floor::run(&args),
        Inner::ExampleTool(tool) => commands::example_tool::run(&tool),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("agentforge").build();
    runtime.map_err(|e| Failure::new(format!("the async runtime cannot start: {e}")))
}

fn run(cli: Cli, out: Output) -> Result {
    let Cli { global, command } = cli;
    // These need no async runtime.
    let command = match command {
        Command::Inner(command) => return inner(command),
        command => command,
    };
    match &command {
        Command::Completions(args) => return completions(args, out),
        Command::Rules(command) => return commands::rules::run(command, out),
        Command::Settings(args) => return commands::settings::run(args, out),
        Command::MetricsCatalogue(args) => return commands::settings::run_metrics(args, out),
        Command::Openapi => return commands::settings::run_openapi(out),
        _ => {}
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let context = || Ok::<_, Failure>(Context { client: Client::new(&global)?, out });
        match command {
            Command::Dev(args) => dev::run(args, &global, out).await,
            Command::Link(command) => commands::link::run(command, out).await,
            Command::Job(command) => commands::job::run(command, &context()?).await,
            Command::Queue(command) => commands::queue::run(command, &context()?).await,
            Command::Dlq(command) => commands::dlq::run(command, &context()?).await,
            Command::Operation(command) => commands::operation::run(command, &context()?).await,
            Command::Schedule(command) => commands::schedule::run(command, &context()?).await,
            Command::Agent(command) => commands::agent::run(command, &context()?).await,
            Command::Sync(command) => commands::sync::run(command, out).await,
            Command::Ledger(command) => commands::ledger::run(command, out).await,
            Command::Webhook(command) => commands::webhook::run(command, out).await,
            Command::WebhookSink(args) => sink::run(args).await,
            Command::Bench(BenchCommand::Webhooks(args)) => bench::webhooks::run(args, out.json).await,
            Command::Bench(BenchCommand::Jobs(args)) => bench::run(args, out.json).await,
            Command::Bench(BenchCommand::Cost(args)) => bench::cost::run(args, out.json).await,
            Command::Bench(BenchCommand::Tactical(args)) => bench::tactical::run(args, out.json).await,
            Command::Bench(BenchCommand::Exporter(args)) => bench::exporter::run(args, out.json).await,
            Command::Bench(BenchCommand::Sync(args)) => bench::sync::run(args, out.json).await,
            Command::Backlog(command) => commands::backlog::run(command, &context()?).await,
            Command::Marker(command) => commands::marker::run(command, &global, out).await,
            Command::Verify(args) => commands::verify::run(args, &context()?).await,
            Command::Backup(args) => commands::backup::backup(args, out).await,
            Command::Restore(args) => commands::backup::restore(args, out).await,
            Command::Inner(_)
            | Command::Completions(_)
            | Command::Rules(_)
            | Command::Settings(_)
            | Command::MetricsCatalogue(_)
            | Command::Openapi => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn completions(args: &args::CompletionsArgs, out: Output) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "agentforge", &mut script);
    out.text(&String::from_utf8_lossy(&script))
}

/// One line of what failed and one of what to do next, on stderr; JSON with `--json`.
pub(crate) fn report(failure: &Failure, out: Output) {
    if failure.message.is_empty() {
        return;
    }
    let mut stderr = anstream::stderr().lock();
    if out.json {
        let body = serde_json::json!({
            "error": { "message": failure.message, "code": failure.code, "hint": failure.hint }
        });
        let _ = writeln!(stderr, "{body}");
        return;
    }
    let _ = writeln!(stderr, "{} {}", styled(RED, "error:"), failure.message);
    if let Some(hint) = &failure.hint {
        let _ = writeln!(stderr, "{} {hint}", styled(BOLD, "hint:"));
    }
}

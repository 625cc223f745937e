//! `agentforge-stack`: starts everything on one machine. `agentforge dev` and its kin become this program.
//!
//! Parses, runs one command, ends with its exit code.

use agentforge_stack::{backup, child, dev, example_tool, link_command, pages, sink, user};
use agentforge_terminal::{Global, Output, Result, STYLES, describe, ended, parse, runtime, usage};
use clap::{CommandFactory, Parser, Subcommand};
use std::{process::ExitCode, time::Duration};

/// Start AgentForge on this machine, and read what it is made of.
#[derive(Debug, Parser)]
#[command(
    name = "agentforge-stack",
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

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start NATS and every service on this machine; with --edge a site and its hub
    Dev(dev::Args),
    /// Cut and restore the link of `agentforge dev --edge`
    #[command(subcommand)]
    Link(link_command::Command),
    /// Back up the orchestrator's database to a file
    Backup(backup::BackupArgs),
    /// Restore a database from a backup
    Restore(backup::RestoreArgs),
    /// Add, list and disable the console's users, and let them in again
    #[command(subcommand)]
    User(user::Command),
    /// Print every setting of every service
    Settings(pages::SettingsArgs),
    /// Print every metric of every service
    #[command(hide = true)]
    MetricsCatalogue(pages::MetricsArgs),
    /// Print an HTTP API as an OpenAPI document
    #[command(hide = true)]
    Openapi(pages::OpenapiArgs),
    /// Answers webhooks and counts them
    #[command(hide = true)]
    WebhookSink(sink::Args),
    /// The commands and options of this program as JSON
    #[command(hide = true)]
    Describe,
    /// Started often, by programs.
    #[command(flatten)]
    Inner(Inner),
}

/// What programs start often. Parsed without the rest of the command line: building all of that takes longer than
/// the work of an example tool.
#[derive(Debug, Subcommand)]
enum Inner {
    /// Tools for trying out `exec`
    #[command(subcommand, hide = true)]
    ExampleTool(example_tool::Command),
    /// Becomes another program that dies with its parent
    #[command(hide = true)]
    RunChild(child::RunChildArgs),
}

/// The command line when it is an inner one.
#[derive(Debug, Parser)]
#[command(name = "agentforge-stack")]
struct InnerCli {
    #[command(subcommand)]
    command: Inner,
}

impl InnerCli {
    /// Whether the first argument asks for one.
    fn is_asked_for() -> bool {
        const ALL: [&str; 2] = ["example-tool", "run-child"];
        std::env::args_os().nth(1).is_some_and(|first| ALL.iter().any(|name| first == *name))
    }
}

fn main() -> ExitCode {
    // `dev` runs the worker in this process, and the worker starts commands by this program.
    agentforge_worker::enable_launcher();
    if InnerCli::is_asked_for() {
        return match InnerCli::try_parse() {
            Ok(cli) => ended(inner(cli.command), Output { json: false }),
            Err(said) => usage(&said),
        };
    }
    match parse::<Cli>("agentforge-stack", "agentforge") {
        Ok(cli) => {
            let out = Output { json: cli.global.json };
            ended(run(cli, out), out)
        }
        Err(said) => usage(&said),
    }
}

fn inner(command: Inner) -> Result {
    match command {
        Inner::RunChild(args) => Err(child::run_child(&args)),
        Inner::ExampleTool(tool) => example_tool::run(&tool),
    }
}

fn run(cli: Cli, out: Output) -> Result {
    let Cli { global, command } = cli;
    let on_runtime = |work: std::pin::Pin<Box<dyn Future<Output = Result>>>| {
        let runtime = runtime()?;
        let ended = runtime.block_on(work);
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    };
    match command {
        Command::Inner(command) => inner(command),
        Command::Settings(args) => pages::run(&args, out),
        Command::MetricsCatalogue(args) => pages::run_metrics(&args, out),
        Command::Openapi(args) => pages::run_openapi(&args, out),
        Command::Describe => out.document(&describe(&Cli::command())),
        Command::Dev(args) => on_runtime(Box::pin(async move { dev::run(args, &global, out).await })),
        Command::Link(command) => on_runtime(Box::pin(link_command::run(command, out))),
        Command::Backup(args) => on_runtime(Box::pin(backup::backup(args, out))),
        Command::Restore(args) => on_runtime(Box::pin(backup::restore(args, out))),
        Command::User(command) => on_runtime(Box::pin(user::run(command, out))),
        Command::WebhookSink(args) => on_runtime(Box::pin(sink::run(args))),
    }
}

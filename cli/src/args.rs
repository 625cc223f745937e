//! The command line: every command, option and example. Parsing only; nothing here acts.
//!
//! Values become real types here (durations, moments, URLs), so that a typo is a usage error (exit
//! code 2) before anything is sent. Commands without arguments here are those of other programs (`elsewhere`).

use crate::commands;
use agentforge_terminal::{Global, STYLES, duration};
use clap::{Parser, Subcommand};
use std::ffi::OsString;

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

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start NATS and every service on this machine; with --edge a site and its hub
    Dev,
    /// Cut and restore the link of `agentforge dev --edge`
    Link,
    /// Submit, list, follow and cancel jobs
    #[command(subcommand)]
    Job(commands::job::Command),
    /// Show waiting and running jobs of each queue, and its workers
    #[command(subcommand)]
    Queue(commands::queue::Command),
    /// List, redrive and discard dead letters
    #[command(subcommand)]
    Dlq(commands::dlq::Command),
    /// Retries and redrives that continue without the command that started them
    #[command(subcommand)]
    Operation(commands::operation::Command),
    /// Create and manage schedules
    #[command(subcommand)]
    Schedule(commands::schedule::Command),
    /// Make tokens for callers of the services
    #[command(subcommand)]
    Token(commands::token::Command),
    /// List workers
    #[command(subcommand)]
    Agent(commands::agent::Command),
    /// Who did what, and whether the log of it is whole
    #[command(subcommand)]
    Audit(commands::audit::Command),
    /// Show the state of a running syncdaemon
    #[command(subcommand)]
    Sync(commands::sync::Command),
    /// Read a site's ledger, and verify it against the hub's stream
    #[command(subcommand)]
    Ledger(commands::ledger::Command),
    /// Give edge sites accounts at their hub, and revoke them
    #[command(subcommand)]
    Site(commands::site::Command),
    /// Manage webhooks: endpoints, attempts, dead letters
    #[command(subcommand)]
    Webhook(commands::webhook::Command),
    /// Measure this installation against its floor
    Bench,
    /// Prove that a change to alerts, contracts, artifacts or manifests is safe
    Governance,
    /// Call what is called too rarely to be measured, a few times
    Seed,
    /// Answers webhooks and counts them
    #[command(hide = true)]
    WebhookSink,
    /// Create a backlog of jobs, and measure how it drains
    #[command(subcommand)]
    Backlog(commands::backlog::Command),
    /// Publish markers and zones to the live picture, and follow it
    #[command(subcommand)]
    Marker(commands::marker::Command),
    /// Check whether an installation works
    Verify(commands::verify::Args),
    /// Check whether people can use the console: login, page, renewal, metrics
    Smoke(commands::smoke::Args),
    /// Back up the orchestrator's database to a file
    Backup,
    /// Restore a database from a backup
    Restore,
    /// Add, list and disable the console's users, and let them in again
    User,
    /// Make the keys that attempts are signed with
    #[command(subcommand)]
    Keys(commands::keys::Command),
    /// Print the recording rules and alerts of this version
    #[command(subcommand)]
    Rules(commands::rules::Command),
    /// Print every setting of every service
    Settings,
    /// Print every metric of every service
    #[command(hide = true)]
    MetricsCatalogue,
    /// Print the REST API as an OpenAPI document
    #[command(hide = true)]
    Openapi,
    /// Print a completion script for your shell
    Completions(CompletionsArgs),
    /// Tools for trying out `exec`
    #[command(hide = true)]
    ExampleTool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
    fn a_token_is_never_shown() {
        let cli = Cli::try_parse_from(["agentforge", "--token", "sesame", "agent", "list"]).unwrap();
        assert!(!format!("{cli:?}").contains("sesame"));
    }
}

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
    Bench,
    /// Answers webhooks and counts them
    #[command(hide = true)]
    WebhookSink,
    /// Make a backlog of jobs, and measure how it drains
    #[command(subcommand)]
    Backlog(commands::backlog::Command),
    /// Put markers and zones on the live picture, and follow it
    #[command(subcommand)]
    Marker(commands::marker::Command),
    /// Ask an installation whether it does its work
    Verify(commands::verify::Args),
    /// Save the orchestrator's database to a file
    Backup,
    /// Bring a saved database back
    Restore,
    /// The recording rules and alerts of this version
    #[command(subcommand)]
    Rules(commands::rules::Command),
    /// Every setting of every service
    Settings,
    /// Every metric of every service
    #[command(hide = true)]
    MetricsCatalogue,
    /// The REST API as an OpenAPI document
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

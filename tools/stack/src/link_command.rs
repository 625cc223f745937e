//! `agentforge link`: cut and restore the link of a running `agentforge dev --edge`.

use crate::link::{self, LinkState, Order};
use agentforge_terminal::{GREEN, Output, RED, Result, age, styled};
use jiff::Timestamp;
use std::path::PathBuf;

/// What to do with the link.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  agentforge link down
  agentforge link status --json
  agentforge link up --data-dir ./.agentforge

The link is the connection of the site's NATS server to that of the hub.")]
pub enum Command {
    /// Cut it: open connections end, new ones are refused
    #[command(after_help = "Examples:\n  agentforge link down")]
    Down(At),
    /// Restore it
    #[command(after_help = "Examples:\n  agentforge link up --data-dir ./.agentforge")]
    Up(At),
    /// Show its state
    #[command(after_help = "Examples:\n  agentforge link status --json")]
    Status(At),
}

/// Whose link.
#[derive(Debug, clap::Args)]
pub struct At {
    /// The data directory of the running `agentforge dev --edge`
    #[arg(long, value_name = "DIR", default_value = "./.agentforge")]
    data_dir: PathBuf,
}

/// Gives the order and says how the link is then.
///
/// # Errors
/// No `dev --edge` runs there.
pub async fn run(command: Command, out: Output) -> Result {
    let (order, at) = match command {
        Command::Down(at) => (Order::Down, at),
        Command::Up(at) => (Order::Up, at),
        Command::Status(at) => (Order::Status, at),
    };
    let state = link::order(&at.data_dir, order).await?;
    if out.json {
        return out.document(&state);
    }
    let LinkState { up, since, connections } = state;
    let word = if up { styled(GREEN, "up") } else { styled(RED, "down") };
    out.line(format!("the link is {word}, for {}; connections: {connections}", age(since, Timestamp::now())))
}

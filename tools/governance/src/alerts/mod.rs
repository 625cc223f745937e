//! `agentforge governance alerts`: every alert has an entry that says what it is for, and changes to them are counted.
//!
//! The taxonomy is a JSON file next to the rules. `lint` and `check` hold it true; the other commands only read it and
//! write artifacts. Nothing here evaluates a rule: that is Prometheus' own work.

mod args;
pub mod badges;
pub mod check;
pub mod delta;
pub mod gates;
mod history;
pub mod lint;
pub mod metrics;
pub mod render;
pub mod rules;
mod run;
pub mod taxonomy;
pub mod words;

use crate::artifact::Artifacts;
use agentforge_terminal::{Output, Result};

pub use args::Command;

/// Does it.
///
/// # Errors
/// A gate that failed (1), broken input (3).
pub fn run(command: Command, artifacts: &Artifacts, out: Output) -> Result {
    match command {
        Command::Lint(args) => run::lint(&args, artifacts, out),
        Command::Check(args) => run::check(&args, out),
        Command::Scaffold(args) => run::scaffold(&args, artifacts, out),
        Command::Render(args) => run::render(&args, artifacts, out),
        Command::Changelog(args) => run::changelog(&args, artifacts, out),
        Command::Delta(args) => run::delta(&args, artifacts, out),
        Command::Drift(args) => run::drift(&args, artifacts, out),
        Command::Metrics(args) => history::metrics(&args, artifacts, out),
        Command::History(args) => history::add(&args, artifacts, out),
        Command::Gate(args) => history::gate(&args, artifacts, out),
    }
}

//! `agentforge-governance`: parses, runs one command, ends with its exit code. `agentforge governance` becomes this program.

use agentforge_governance::cli::{Cli, run};
use agentforge_terminal::{Output, ended, parse, usage};
use std::process::ExitCode;

fn main() -> ExitCode {
    // `agentforge seed` is this program too.
    let is_seed = std::env::args_os().nth(1).is_some_and(|word| word == "seed");
    let through = if is_seed { "agentforge" } else { "agentforge governance" };
    match parse::<Cli>("agentforge-governance", through) {
        Ok(cli) => {
            let out = Output { json: cli.global.json };
            ended(run(cli, out), out)
        }
        Err(said) => usage(&said),
    }
}

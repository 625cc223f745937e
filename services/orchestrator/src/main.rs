//! `agentforge-orchestrator`: the service as its own process, configured by the environment.
//! `agentforge-orchestrator topology`: the process that makes streams and buckets.

use agentforge_orchestrator::{Orchestrator, Topology};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == "topology").is_some() {
        return ExitCode::from(agentforge_runtime::main_from::<Topology>(arguments, &agentforge_config::Env));
    }
    ExitCode::from(agentforge_runtime::main_from::<Orchestrator>(arguments, &agentforge_config::Env))
}

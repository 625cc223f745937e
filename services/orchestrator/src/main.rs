//! `agentforge-orchestrator`: the service as its own process, configured by the environment.

fn main() -> std::process::ExitCode {
    agentforge_runtime::main::<agentforge_orchestrator::Orchestrator>()
}

//! The worker's binary: everything is in the library and in the runtime's `main`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agentforge_worker::shed_secrets();
    agentforge_worker::enable_launcher();
    agentforge_runtime::main::<agentforge_worker::WorkerService>()
}

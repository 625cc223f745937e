//! The worker's binary: everything is in the library and in the runtime's `main`.

use std::process::ExitCode;

/// Hundreds of small values for each job come and end on several threads: the system's allocator took a third of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    agentforge_worker::shed_secrets();
    agentforge_worker::enable_launcher();
    agentforge_runtime::main::<agentforge_worker::WorkerService>()
}

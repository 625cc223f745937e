//! The broadcaster's binary: everything is in the library and in the runtime's `main`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agentforge_runtime::main::<agentforge_broadcaster::Broadcaster>()
}

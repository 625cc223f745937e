//! The exporter's binary: flags are the library's, everything else is the runtime's `main`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(agentforge_nats_exporter::main_from(std::env::args_os().skip(1)))
}

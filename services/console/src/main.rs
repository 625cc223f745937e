//! The console's binary: everything is the library's.

use agentforge_console::Console;
use std::process::ExitCode;

fn main() -> ExitCode {
    agentforge_runtime::main::<Console>()
}

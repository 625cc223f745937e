//! The tactical API's binary: everything is the library's.

use agentforge_tactical_api::TacticalApi;
use std::process::ExitCode;

fn main() -> ExitCode {
    agentforge_runtime::main::<TacticalApi>()
}

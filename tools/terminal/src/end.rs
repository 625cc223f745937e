//! How a program ends: help, errors and the exit code.

use crate::{
    error::{Failure, Result, USAGE},
    output::{BOLD, Output, RED, styled},
};
use std::{io::Write, process::ExitCode};

/// Help and version go to stdout and end with 0, usage errors to stderr with 2.
pub fn usage(said: &clap::Error) -> ExitCode {
    // A reader that went away is not a failure.
    let _ = said.print();
    ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(USAGE))
}

/// Prints what failed, and gives the exit code.
pub fn ended(outcome: Result, out: Output) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, out);
            ExitCode::from(failure.exit)
        }
    }
}

/// The async runtime of a program.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("agentforge").build();
    runtime.map_err(|e| Failure::new(format!("the async runtime cannot start: {e}")))
}

/// One line of what failed and one of what to do next, on stderr; JSON with `--json`.
pub fn report(failure: &Failure, out: Output) {
    if failure.message.is_empty() {
        return;
    }
    let mut stderr = anstream::stderr().lock();
    if out.json {
        let body = serde_json::json!({
            "error": { "message": failure.message, "code": failure.code, "hint": failure.hint }
        });
        let _ = writeln!(stderr, "{body}");
        return;
    }
    let _ = writeln!(stderr, "{} {}", styled(RED, "error:"), failure.message);
    if let Some(hint) = &failure.hint {
        let _ = writeln!(stderr, "{} {hint}", styled(BOLD, "hint:"));
    }
}

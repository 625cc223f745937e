//! The NATS exporter: the monitoring endpoints of NATS servers as a page for Prometheus.
//!
//! Replaces prometheus-nats-exporter: same flags, names, labels and values. In addition it has a compact family with
//! one row for each stream and consumer, which the product's rules use. Promises: nothing on the page is older than the
//! scrape that asked for it, a server that fails affects no other's series, and no credential is shown.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod auth;
mod client;
mod collect;
mod config;
mod duration;
mod endpoint;
mod error;
mod filter;
mod flags;
mod json;
mod jsz;
pub mod metrics;
mod page;
mod scrape;
mod service;
mod snapshot;
mod table;
mod target;

pub use config::Config;
pub use error::Error;
pub use flags::{CommandLine, parse as parse_flags};
pub use service::NatsExporter;

use agentforge_config::{EXIT_CODE, Env};
use std::{ffi::OsString, io::Write};

/// The binary's `main`: the flags of the known exporter over the environment, then the runtime's own.
/// Returns the exit code.
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let name = "nats-exporter";
    let line = match parse_flags(arguments) {
        Ok(line) => line,
        Err(problem) => {
            complain(&format!("{name}: {problem}; -help lists all flags\n"));
            return EXIT_CODE;
        }
    };
    for warning in &line.warnings {
        complain(&format!("{name}: {warning}\n"));
    }
    if line.rest.iter().any(|argument| argument == "--help") {
        // A reader that went away is not our failure.
        let _ = std::io::stdout().lock().write_all(flags::help().as_bytes());
    }
    agentforge_runtime::main_from::<NatsExporter>(line.rest, &(line.settings, (Env, line.defaults)))
}

/// Before there is a log.
fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

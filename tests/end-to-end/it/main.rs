//! The promises of the README, attacked against real servers and the real binaries.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod api;
mod board;
mod chaos;
mod costs;
mod duplicates;
mod edge;
mod examples;
mod hostile;
mod house;
mod links;
mod oracle;
mod order;
mod orders;
mod pauses;
mod poison;
mod postgres;
mod pressure;
mod queues;
mod ready;
mod replicas;
mod restarts;
mod rubbish;
mod shutdown;
mod stack;
mod vanish;
mod waits;
mod ways_back;
mod workers;

/// Counts are scaled in `make test` and whole in `make soak`.
fn soak() -> bool {
    std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1")
}

//! `agentforge bench`: measures the product beside the raw limit, in the same run.
//!
//! Owns no service: it starts the real stack as separate processes in a directory of its own,
//! drives it through the public API, and checks exact delivery in the database afterwards.

mod check;
pub mod cost;
pub mod exporter;
mod floor;
mod jobs;
mod latency;
mod machine;
mod process;
mod report;
mod stack;
pub mod sync;
pub mod tactical;
pub mod throughput;
pub mod webhooks;

pub use jobs::{Args, run};

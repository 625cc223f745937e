//! The worker: takes jobs from their queues, runs tools, reports what became of each attempt.
//!
//! Relies on the orchestrator for the streams, consumers and buckets, and for every decision about retries. Promises: a
//! job that was delivered here is either reported before it is acknowledged, or redelivered; a hand-back uses up no
//! attempt. To compile your own tools in, implement [`tools::Tool`] and [`CompiledIn`], and run [`WorkerWith`];
//! `examples/custom-tool` shows it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acks;
mod attempt;
mod buckets;
mod bundle;
mod certificate;
mod clock;
mod config;
mod consume;
mod error;
mod job;
mod keepalive;
mod ledger;
mod lifeline;
mod markers;
pub mod metrics;
mod orders;
mod patience;
mod recent;
mod refusals;
mod run;
mod secrets;
mod service;
mod slots;
mod stop;
mod streams;
pub mod tools;
pub mod tools_file;
mod worker;

pub use config::{BUILT_IN, Config};
pub use error::Error;
pub use lifeline::Error as LifelineError;
pub use secrets::shed_secrets;
pub use service::{BuiltInOnly, CompiledIn, WorkerService, WorkerWith};
pub use tools::exec::enable_launcher;
pub use tools::{Tool, ToolContext, ToolError, ToolOutput, Toolbox, ToolboxError, parse_args};

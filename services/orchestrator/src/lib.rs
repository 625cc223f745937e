//! The orchestrator: accepts jobs, hands them to JetStream, commits one result each.
//!
//! ```text
//! gRPC, REST ─▶ app ─▶ committer ─▶ store (SQL, the truth) ─▶ relay ─▶ swarm_jobs ─▶ workers
//!                         ▲                                                             │
//!                         └──────────── results ◀───────────────────── swarm_results ◀──┘
//! ```
//! Decisions are pure: `admission` (what may be submitted), `transition` (what a job becomes),
//! `cron` (when a schedule runs). Everything is wired in `service`, and nowhere else.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod api;
pub mod app;
mod assembly;
mod audit_check;
pub mod audit_settings;
mod auditing;
pub mod caller;
mod clock;
pub mod config;
mod consumers;
mod control;
pub mod cron;
mod deletions;
mod drain;
mod edge;
pub mod error;
mod housekeeping;
pub mod keys;
mod links;
pub mod metrics;
pub mod model;
mod opening;
pub mod operation;
mod outputs;
mod presence;
mod queues;
mod reconcile;
mod relay;
mod reports;
mod results;
mod reuse;
pub mod sensitive;
pub mod service;
pub mod slo;
pub mod store;
mod streams;
pub mod topology;
pub mod transition;
pub mod turns;

pub use config::Config;
pub use service::Orchestrator;
pub use topology::Topology;

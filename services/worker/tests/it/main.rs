//! The worker against a real NATS server; the tests play the orchestrator.
#![allow(clippy::unwrap_used, missing_docs)]

mod bench;
mod confinement;
mod ends;
mod leftovers;
mod lifecycle;
mod losses;
mod operations;
mod refusals;
mod secrets;
mod separation;
mod tools;

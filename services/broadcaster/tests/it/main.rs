//! The broadcaster against a real NATS server and real HTTP servers, as a process of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod audited;
mod certificates;
mod chaos;
mod circuit;
mod delivery;
mod egress;
mod history;
mod isolation;
mod keep_alive;
mod keeping;
mod lifecycle;
mod managed;
mod outcomes;
mod purge;
mod rate;
mod reload;
mod rotation;
mod sink;
mod stage;
mod upgrades;
mod vanish;

//! The broadcaster against a real NATS server and real HTTP servers, as a process of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod chaos;
mod circuit;
mod delivery;
mod egress;
mod isolation;
mod keeping;
mod lifecycle;
mod outcomes;
mod reload;
mod sink;
mod stage;

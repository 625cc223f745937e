//! Tests of the public API, and of the shipped process.
#![allow(clippy::unwrap_used)]

mod api;
mod audit_check;
mod audit_events;
mod audit_kill;
mod bulk_cancels;
mod cancels;
mod clock_steps;
mod clocks;
mod database_login;
mod logs;
mod operations;
mod process;
mod store_conformance;
mod turns;

//! The `agentforge` binary as a user meets it: help, errors, exit codes, and the all-in-one.
#![allow(clippy::unwrap_used, missing_docs)]

mod batch;
mod bench;
mod console;
mod dev;
mod dev_edge;
mod dev_faults;
mod jobs;
mod keys;
mod ledger;
mod pages;
mod site;
mod support;
mod tls;
mod usage;
mod webhook;

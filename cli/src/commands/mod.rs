//! One module a command. Each owns its arguments with their examples, its calls and its output.

pub mod agent;
pub mod audit;
pub mod backlog;
pub mod dlq;
mod headers;
pub mod job;
pub mod keys;
pub mod ledger;
pub mod marker;
pub mod operation;
pub mod queue;
pub mod rules;
pub mod schedule;
pub mod site;
pub mod smoke;
pub mod sync;
pub mod token;
pub mod verify;
pub mod webhook;

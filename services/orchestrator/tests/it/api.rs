//! REST and gRPC from outside: a whole orchestrator on SQLite, without NATS. What it accepts stays accepted.

mod access;
mod answers;
mod contract;
mod limits;
mod operations;
mod refusals;
mod server;
mod slo;
mod streams;
mod ways_back;

//! REST and gRPC from outside: a whole orchestrator on SQLite, without NATS. What it accepts stays accepted.

mod access;
mod answers;
mod audit;
mod certificates;
mod contract;
mod contract_calls;
mod limits;
mod oidc;
mod operations;
mod refusals;
mod scopes;
mod sensitive;
mod server;
mod sites;
mod slo;
mod streams;
mod ways_back;

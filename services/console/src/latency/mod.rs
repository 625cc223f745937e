//! The latency sampler: asks each service now and then, keeps 200 samples of it, and says what they mean.
//!
//! Owns the targets, their samples and the file in which the API keeps targets. A probe is bounded in time, in bytes
//! and in number; a host that is not on the list is never asked. Relies on `libs/egress` for connections.

mod api;
mod board;
pub mod metrics;
mod persist;
mod probe;
pub mod recent;
mod sampler;
pub mod settings;
mod stats;
pub mod targets;

#[cfg(test)]
mod tests;

pub use api::router;
pub use sampler::Latency;

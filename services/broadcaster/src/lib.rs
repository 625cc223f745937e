//! The broadcaster: events on NATS reach HTTP endpoints at least once, signed, even if an endpoint fails.
//!
//! Each endpoint has a durable consumer, dispatch tasks and connections of its own. What cannot be delivered now is
//! kept in JetStream and nowhere else: parked until it is due, or dead. Relies on `libs/egress` for what may
//! be called. Promises: an event is acknowledged after its delivery or after the PubAck of its record, and
//! `webhook-id` is the same in every attempt.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod config;
mod delivery;
mod endpoints;
mod error;
mod history;
pub mod metrics;
mod payload;
mod redelivery;
mod registry;
mod retry;
mod service;
mod settings;
mod topology;
mod upkeep;

pub use api::openapi::openapi_json;
pub use config::Config;
pub use error::Error;
pub use registry::managed::new_secret;
pub use service::Broadcaster;

//! The broadcaster: events on NATS reach HTTP endpoints at least once, signed, whatever an endpoint does.
//!
//! Each endpoint has a durable consumer, lanes and connections of its own. What cannot be delivered now is
//! kept in JetStream and nowhere else: parked until it is due, or dead. Relies on `libs/egress` for what may
//! be called. Promises: an event is acknowledged after its delivery or after the PubAck of its record, and
//! `webhook-id` is the same in every attempt.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod alerts;
mod api;
mod caller;
mod cards;
mod circuit;
mod clock;
mod config;
mod consumers;
mod dead_letters;
mod delivery_log;
mod endpoint_file;
mod error;
mod event;
mod fleet;
mod gate;
mod history;
mod lane;
mod made;
mod margin;
pub mod metrics;
pub mod names;
mod notice;
mod outcome;
mod pace;
mod record;
mod reference;
mod reload;
mod render;
mod replay;
mod room;
mod running;
mod schedule;
mod service;
mod sign;
mod source;
mod state;
mod store;
mod sweep;
mod topology;
mod walk;

pub use config::Config;
pub use error::Error;
pub use made::new_secret;
pub use service::Broadcaster;

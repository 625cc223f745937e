//! NATS JetStream as this product uses it: connecting, subjects, topology, publishing, consuming.
//!
//! Relies on async-nats for the protocol. What async-nats leaves open is owned here: reconnects with full jitter,
//! replies that end when the connection does, a pull loop that never requests more than it was granted and cannot go
//! silent, and reliable acknowledgements. Independent of jobs.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod backoff;
mod config;
pub mod consume;
mod denied;
mod hub;
mod link;
pub mod metrics;
mod missing;
mod nats;
mod nkey;
pub mod publish;
mod replies;
mod server_version;
pub mod site_accounts;
pub mod subjects;
pub mod topology;
pub mod trace;
mod trouble;
mod usage;

pub use api::ApiError;
pub use async_nats::HeaderMap;
pub use config::{Auth, NatsConfig, Tls};
pub use consume::{AckInfo, Delivery, PullOptions, Puller, Settler, Slots};
pub use hub::{Domain, EDGE_HUB_DOMAIN, HubConfig, HubLink};
pub use missing::Missing;
pub use nats::{Error, Nats};
pub use publish::{Ack, Publisher, publish};
pub use server_version::{NEWEST_TRIED, OLDEST, REPLIES_APART, ServerVersion, Support};
pub use trouble::Trouble;
pub use usage::StreamUse;

//! The tactical API: a live, sanitised GeoJSON picture over SSE and WebSocket, and signed links to evidence.
//!
//! Promises: what leaves is RFC 7946 whatever came in; a client sees every state or is told of the gap; a
//! slow one slows nobody; a place is given back however a client goes. The stream `tactical` is the truth,
//! and evidence is what the syncdaemon delivered. Knows nothing of jobs.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod api;
mod config;
mod error;
mod event;
mod evidence;
mod expiry;
mod fanout;
pub mod feature;
mod filter;
mod forwarded;
pub mod geometry;
mod history;
mod joiners;
pub mod links;
mod live;
pub mod metrics;
mod origin;
mod picture;
mod replay;
pub mod sanitise;
mod service;
mod slots;
mod source;
mod stream;
mod tail;
mod text;
mod ws;

pub use config::{Access, Config, Limits};
pub use error::Error;
pub use service::TacticalApi;

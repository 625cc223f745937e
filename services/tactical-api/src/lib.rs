//! The tactical API: a live, sanitised GeoJSON picture over SSE and WebSocket, and signed links to evidence.
//!
//! Promises: output is RFC 7946 regardless of the input; a client sees every state or gets a gap; a slow client slows
//! no other; a slot is freed however a client leaves. The stream `tactical` is the truth, and evidence is what the
//! syncdaemon delivered. Independent of jobs.
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
pub mod geometry;
mod history;
mod joiners;
pub mod links;
mod live;
pub mod metrics;
mod origin;
mod picture;
mod reference;
mod replay;
pub mod sanitise;
mod service;
mod signing;
mod slots;
mod source;
mod stream;
mod tail;
mod text;
mod ws;

pub use access::Access;
pub use api::openapi::openapi_json;
pub use config::{Config, Limits};
pub use error::Error;
pub use service::TacticalApi;
pub use signing::Signing;

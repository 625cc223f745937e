//! Which outside addresses may be called: one set of rules for webhooks and for the http tool.
//!
//! Owns the decision ([`Policy`]) and the only HTTP client that keeps it ([`Client`]): a URL is
//! checked before a request is made, and every address after its name was resolved, so that a name
//! cannot lead inside. Redirects are never followed and no proxy is used, because either would
//! choose an address behind the policy's back. `ENV=dev` opens nothing.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod client;
mod net;
mod policy;
mod ranges;

pub use body::{Body, read_body_capped};
pub use client::{Client, Error, Timeouts, client, refusal};
pub use net::Net;
pub use policy::{Policy, PolicyFault, Refusal};
pub use ranges::{Kind, kind_of};

//! Which outside addresses may be called: one set of rules for webhooks and for the http tool.
//!
//! Owns the decision ([`Policy`]) and the two ways to call that keep it: [`Client`] for requests of
//! every kind, [`Dialer`] for many small requests over few connections. A URL is checked before a
//! request is made, and every address after its name was resolved, so that a name cannot lead inside.
//! Redirects are never followed and no proxy is used, because either would choose an address behind
//! the policy's back. `ENV=dev` opens nothing.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod client;
mod connection;
mod dial;
mod net;
mod policy;
mod ranges;
mod resolve;
mod retry_after;

pub use body::{Body, read_body_capped};
pub use client::{Client, Error, Timeouts, client, refusal};
pub use connection::{Answer, CallError, Connection};
pub use dial::{DialError, Dialer, DialerError, Target, TargetError};
pub use net::Net;
pub use policy::{Policy, PolicyFault, Refusal};
pub use ranges::{Kind, kind_of};
pub use resolve::{Resolve, ResolveError, Resolving, SystemResolver};
pub use retry_after::{RETRY_AFTER_MAX, retry_after};

//! The door of a service: where callers of its HTTP and gRPC surfaces are let in or refused.
//!
//! Owns what is around the check of [`agentforge_access`]: its settings, the file of tokens that is read again when
//! it changes, the keys of issuers, the address behind trusted proxies, limits of rate, the pauses after failed logins, log lines and metrics.
//! Also records what was asked of an HTTP surface ([`audited`]). Who is let in is decided there; what an operation needs and the words of a refusal are the surface's.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod audited;
mod config;
mod console;
mod door;
mod issuers;
mod logins;
pub mod metrics;
mod rates;
mod shown;
mod watch;

pub use audited::{Audit, Calls, audited};
pub use config::{DoorConfig, SETTINGS};
pub use console::ConsoleKeys;
pub use door::{Door, Refusal};
pub use logins::Logins;
pub use rates::Rates;
pub use shown::Shown;

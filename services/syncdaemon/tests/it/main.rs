//! The syncdaemon as a process of its own, against real NATS servers.
#![allow(clippy::unwrap_used, missing_docs)]

mod crashes;
mod delivery;
mod site;

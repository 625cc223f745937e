//! The syncdaemon as a process of its own, against real NATS servers.
#![allow(clippy::unwrap_used, missing_docs)]

mod bounds;
mod crashes;
mod delivery;
mod duplicates;
mod edge;
mod hub;
mod ledger;
mod names;
mod odd;
mod places;
mod removal;
mod site;
mod writers;

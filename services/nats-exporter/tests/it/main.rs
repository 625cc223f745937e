//! The exporter as its users have it: the binary with its flags, with real NATS servers.
#![allow(clippy::unwrap_used)]

mod cluster;
mod endpoints;
mod faults;
mod fleeting;
mod jetstream;
mod links;
mod protect;
mod rules;
mod support;
mod usage;

//! The exporter as its users have it: the binary with its flags, beside real NATS servers.
#![allow(clippy::unwrap_used)]

mod single;
mod support;

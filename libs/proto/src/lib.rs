//! The wire contracts: gRPC types generated from `proto/agentforge/v1`, and the JSON on the bus.
//!
//! Owns shapes and their conversion at the border; holds no behaviour and does no I/O. Fields are
//! only ever added, with a default, so that the version before reads what this one writes.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bus;
mod error_class;
pub mod evidence;
pub mod json;
pub mod operation;
pub mod time;

/// Generated from `proto/agentforge/v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("agentforge.v1");
}

/// The descriptors of every file in `proto/`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

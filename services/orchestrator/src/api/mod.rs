//! How callers reach the application: gRPC and REST, with one table of operations and roles.
//!
//! Owns everything that is specific to a protocol: shapes, errors on the wire, credentials, limits
//! on requests. Relies on [`App`](crate::app::App) for every decision about jobs; never touches the store.

pub mod auth;
pub mod grpc;
pub mod limits;
pub mod operations;
pub mod rest;

mod job;
mod stream;
pub(crate) mod trace;

pub use auth::{Auth, Role};

use crate::error::{Code, Error};
use std::error::Error as _;

/// Longest error message sent, bytes: gRPC sends it as a header, and peers refuse large headers.
const MESSAGE_MAX_BYTES: usize = 2 * 1024;

/// The message as it may be sent.
fn shown(message: &str) -> String {
    let mut shown = message.to_owned();
    agentforge_proto::bus::truncate(&mut shown, MESSAGE_MAX_BYTES);
    shown
}

/// Logs what the caller could not have caused, once, with its chain of causes.
fn log_failure(error: &Error, operation: &str, request_id: Option<&str>) {
    if error.code.http_status() < 500 {
        return;
    }
    let mut cause = String::new();
    let mut next = error.source();
    while let Some(e) = next {
        if !cause.is_empty() {
            cause.push_str(": ");
        }
        cause.push_str(&e.to_string());
        next = e.source();
    }
    let (code, request_id) = (error.code.as_str(), request_id.unwrap_or_default());
    if error.code == Code::Internal {
        tracing::error!(operation, code, request_id, error = %error, cause, "request failed");
    } else {
        tracing::warn!(operation, code, request_id, error = %error, cause, "request failed");
    }
}

/// The refusal of a long answer that a stop cuts short.
fn stopping() -> Error {
    Error::new(Code::Unavailable, "the orchestrator is stopping; ask again")
        .retry_after(std::time::Duration::from_secs(1))
}

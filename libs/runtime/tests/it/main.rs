//! The chassis through its public face: listeners and requests here, whole processes in `process`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod host;
mod http;
mod otlp;
mod process;
mod support;
mod tls;

//! Tests of the public API.
#![allow(clippy::unwrap_used)]

mod api;
mod store_conformance;

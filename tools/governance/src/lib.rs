//! Changes to alerts, contracts, artifacts and manifests are proven safe before they are merged, for any repository.
//!
//! Owns the rules and the artifacts below `status/`. Reads files and, through the `git` program, their older versions;
//! calls no network but the webhook. Deterministic: the same input gives the same bytes. Knows no service.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod alerts;
pub mod artifact;
pub mod badge;
pub mod bundle;
pub mod cli;
pub mod contract;
pub mod exit;
pub mod git;
pub mod global;
pub mod html;
pub mod manifests;
pub mod schemas;
pub mod seed;
pub mod semver;
pub mod send;
pub mod stability;
pub mod summary;
pub mod trend;
pub mod webhook;

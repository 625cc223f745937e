//! What a change does to those who call us: breaking or not, per operation, with the rule that says so.
//!
//! Owns the comparison of two contracts and what a run of it means: classification, version, history, notice.

pub mod catalogue;
pub mod classify;
pub mod cli;
pub mod finding;
pub mod openapi;
pub mod proto;
pub mod rules;
pub mod tree;

pub use cli::{Args, run};

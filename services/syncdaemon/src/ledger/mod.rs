//! The ledger: what happened to every file, one JSON object per line, each line tied to the previous one.
//!
//! `entry` is a line, `account` what all lines claim, `chain` reads lines and finds gaps and edits, `files` knows the ledger's files,
//! `writer` appends with a group commit, `repair` cuts off what a power loss left half written.

pub mod account;
pub mod chain;
pub mod entry;
pub mod files;
mod repair;
pub(crate) mod writer;

pub use account::Account;
pub use chain::{Chain, Fault};
pub use entry::{Entry, Event};

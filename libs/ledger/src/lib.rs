//! The ledger of a site: what became of every file, one JSON object per line, each line tied to the previous one.
//!
//! Owns the format, reading it, and holding it against the hub's stream: `entry` is a line, `chain` reads lines and
//! finds gaps and edits, `files` knows the ledger's files, `account` gathers what all lines claim, `verify` finds what was
//! cut off, `hub` asks the stream. Writes nothing: the syncdaemon is the only writer.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod account;
pub mod chain;
pub mod entry;
pub mod files;
pub mod hub;
pub mod verify;

pub use account::{Account, Claim, LocatedFault};
pub use chain::{Chain, Fault};
pub use entry::{Entry, Event};
pub use hub::Hub;
pub use verify::{Ledger, Newest};

//! The syncdaemon: every file that is put into the replay directory reaches the hub's stream, once, with
//! proof.
//!
//! Relies on the stream for "once" (one message per site and content, refused when it is sent again) and on
//! an acknowledgement of that stream for "reached". Promises: a file is removed only after its line is in
//! the synced ledger, and that only after the acknowledgement; a crash at any step loses nothing. Never
//! overwrites a file, never follows a symlink, never gives up a file because a link is down.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod completion;
mod config;
mod content;
mod delivery;
mod directory;
mod discovery;
mod error;
mod ledger;
pub mod metrics;
pub mod names;
mod outcome;
mod pace;
mod progress;
mod queue;
mod service;
pub mod steps;

pub use config::Config;
pub use error::Error;
pub use progress::{FileSample, Held, Status};
pub use queue::LeftAlone;
pub use service::Syncdaemon;

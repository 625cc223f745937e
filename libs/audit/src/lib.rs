//! The audit log's form: an entry, the chain of hashes that it becomes part of, the event that carries it, and the check
//! of a whole chain; and the one view of them that REST, gRPC and the command line share.
//!
//! Every service says what was asked of it in the same words; the orchestrator's database keeps them, and anyone who can
//! read the entries can check them. Pure: no I/O. The canonical form is frozen: a stored hash must stay what it is.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chain;
mod entry;
mod event;
mod named;
mod verify;
mod view;

pub use chain::{Chained, Hash, Head, NotAHash};
pub use entry::{ASKED, Asker, CHECKPOINT, DETAIL_MAX_BYTES, Entry, OK, ORCHESTRATOR, PRUNE, TEXT_MAX_BYTES};
pub use event::{EVENTS_PREFIX, Event, EventData, subject};
pub use named::NAMED_MAX;
pub use verify::{Base, Chain, Finding, Follower, Pruned, Verified, Verifier};
pub use view::{ChainView, EntryView, NoTime};

//! From the hub's acknowledgement to the end of a file: written to the ledger, then removed.
//!
//! `commit` owns the order, `remove` takes files away, `recover` finishes at the start what a crash left open.

pub mod commit;
pub mod recover;
pub mod remove;

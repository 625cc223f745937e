//! Writing the ledger, whose format is `agentforge_ledger`'s.
//!
//! `writer` appends with a group commit, `repair` cuts off what a power loss left half written.

mod repair;
pub(crate) mod writer;

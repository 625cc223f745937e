//! From a file that is known to the hub's acknowledgement.
//!
//! `publish` sends one message and judges the answer; `small` and `large` are the lanes of files that fit a message
//! and of those that go in chunks; `aliases` reports other names of a content; `streams` keeps stream and bucket there.

pub mod aliases;
pub mod large;
pub mod publish;
pub mod small;
pub mod streams;

//! What is sent again on request: dead letters, and events that were delivered before.

pub mod dead_letters;
pub mod replay;
mod requeue;

//! Streams, consumers and subjects: their names, how they are created and corrected, and how they are read.

pub mod backlog;
pub mod consumers;
pub mod error;
pub mod names;
pub mod reader;
pub mod retention;
pub mod sources;
pub mod streams;

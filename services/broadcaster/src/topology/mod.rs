//! Streams, consumers and subjects: their names, how they are made, and how they are read.

pub mod consumers;
pub mod names;
pub mod reader;
pub mod retention;
pub mod streams;

//! What became of each attempt: the last ones in memory, all of them in a stream.

pub mod attempt;
pub mod recent;
pub mod stream;

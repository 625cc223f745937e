//! Integrity of the artifacts: checksums, a signature over them, and what was tampered with.
//!
//! Owns the formats; `cli` reads and writes the files.

mod cli;
pub mod signature;
pub mod sums;

pub use cli::{Args, run};

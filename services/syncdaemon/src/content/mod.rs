//! What is in a file: its bytes, read and hashed, and what its writer says of it.

pub mod buffers;
pub mod hash;
pub mod metadata;
pub mod read;

//! How files are found: by reading the directory, which is the truth, and by events, which are hints.

pub mod events;
pub mod inspect;
pub mod scan;

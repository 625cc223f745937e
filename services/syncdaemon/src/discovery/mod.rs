//! How files are found: by reading the directory, which is the truth, and by events, which are hints.

pub mod scan;
pub mod watch;

//! Why evidence cannot be read.

use crate::history;

/// Why evidence cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream or the bucket does not answer.
    #[error("looking evidence up")]
    Stream(#[from] history::Error),
    /// What is stored is not what its description says.
    #[error("the evidence is damaged: {0}")]
    Damaged(String),
    /// The caller's address has its share.
    #[error("too much evidence is being read from this address already")]
    Busy,
}

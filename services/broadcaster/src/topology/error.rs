//! Why streams or consumers cannot be used.

use crate::error::chain;
use agentforge_jetstream::topology;

/// Why the streams cannot be used yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stream cannot be created or corrected.
    #[error(transparent)]
    Topology(#[from] topology::Error),
    /// The server does not answer, or refuses.
    #[error("{attempt}: {reason}")]
    Api {
        /// What was attempted.
        attempt: String,
        /// What the server said.
        reason: String,
    },
}

impl Error {
    /// Whether the server was not able to answer.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Topology(error) if error.is_retryable())
    }
}

/// A failed request, with what was attempted.
pub(crate) fn api(attempt: impl Into<String>) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Error {
    let attempt = attempt.into();
    move |e| Error::Api { attempt, reason: chain(&*e) }
}

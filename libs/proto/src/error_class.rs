//! Classes of error: what decides whether another try follows.

use serde::{Deserialize, Serialize};

/// Classes of error. The first four are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Passes by itself.
    Transient,
    /// The network failed.
    Network,
    /// The attempt ran longer than its timeout.
    Timeout,
    /// The other side asked to be called less.
    RateLimited,
    /// The arguments are wrong.
    Validation,
    /// No worker has the tool.
    ToolNotFound,
    /// Not allowed, egress rules included.
    Permission,
    /// The tool failed in a way that another try would repeat.
    Runtime,
    /// The job's workers died or stalled too often.
    WorkerLost,
    /// The deadline passed.
    Expired,
    /// A caller cancelled it.
    Cancelled,
    /// A message that is not a job.
    InvalidMessage,
    /// A class that a later version knows; not retried.
    #[serde(other)]
    Unknown,
}

impl ErrorClass {
    /// Whether another try may help.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Transient | Self::Network | Self::Timeout | Self::RateLimited)
    }
    /// The class as a word: in JSON, in metrics and in the stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Validation => "validation",
            Self::ToolNotFound => "tool_not_found",
            Self::Permission => "permission",
            Self::Runtime => "runtime",
            Self::WorkerLost => "worker_lost",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::InvalidMessage => "invalid_message",
            Self::Unknown => "unknown",
        }
    }
    /// Reads the word; what it does not know is [`ErrorClass::Unknown`].
    pub fn from_word(word: &str) -> Self {
        [
            Self::Transient,
            Self::Network,
            Self::Timeout,
            Self::RateLimited,
            Self::Validation,
            Self::ToolNotFound,
            Self::Permission,
            Self::Runtime,
            Self::WorkerLost,
            Self::Expired,
            Self::Cancelled,
            Self::InvalidMessage,
        ]
        .into_iter()
        .find(|c| c.as_str() == word)
        .unwrap_or(Self::Unknown)
    }
}

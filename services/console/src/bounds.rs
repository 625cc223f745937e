//! Limits that several modules share.

/// Larger bodies are refused.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

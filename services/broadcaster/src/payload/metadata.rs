//! What is known of an event in addition to its bytes.

use jiff::Timestamp;

/// What is known of an event besides its bytes.
#[derive(Debug, Clone, Copy)]
pub struct EventMetadata<'a> {
    /// The value of the header `webhook-id`, the same for all attempts.
    pub id: &'a str,
    /// Where it was published.
    pub subject: &'a str,
    /// When its stream stored it; the same in every attempt.
    pub at: Timestamp,
}

//! Waits between the attempts of a job: doubled each time, capped, spread by jitter.

use crate::model::RetryPolicy;
use agentforge_message_id::Attempt;
use std::time::Duration;

/// How long a retry waits.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Before the first retry.
    pub base: Duration,
    /// Never longer, but for a tool's own wish.
    pub cap: Duration,
    /// A tool's Retry-After is honoured up to this.
    pub retry_after_cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(30),
            retry_after_cap: Duration::from_secs(3600),
        }
    }
}

impl Backoff {
    /// These waits, where a job does not ask for others.
    pub fn with(&self, own: RetryPolicy) -> Self {
        let base = own.base.unwrap_or(self.base);
        // A caller that asks only for a longer first wait means it.
        let cap = own.cap.unwrap_or(self.cap.max(base));
        Self { base: base.min(cap), cap, ..*self }
    }

    /// The wait after attempt `attempt`; `jitter` in 0..1 spreads it between half and whole.
    pub fn after(&self, attempt: Attempt, retry_after: Option<Duration>, jitter: f64) -> Duration {
        let doublings = attempt.get().saturating_sub(1).min(30);
        let whole = self.base.saturating_mul(1 << doublings).min(self.cap);
        let spread = whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        spread.max(retry_after.unwrap_or_default().min(self.retry_after_cap))
    }
}

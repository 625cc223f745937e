//! How messages are asked for, and the limits of that.

use std::time::Duration;

/// How a [`Puller`](super::Puller) asks for messages.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The most messages that are asked for or wait in the puller's own queue at any time, 1 or more.
    /// Slots granted beyond it are kept and used as room comes.
    pub max_outstanding: usize,
    /// How long the server keeps a request: 1 s to 5 min.
    pub expires: Duration,
    /// How often the server says that it still knows a request; at most a third of `expires`.
    /// Twice this without a message and the subscription is recreated.
    pub heartbeat: Duration,
    /// The loop's name in metrics and logs.
    pub loop_name: &'static str,
}

impl PullOptions {
    /// 30 s requests with a heartbeat of 5 s.
    pub fn new(loop_name: &'static str, max_outstanding: usize) -> Self {
        Self { max_outstanding, expires: Duration::from_secs(30), heartbeat: Duration::from_secs(5), loop_name }
    }

    pub(super) fn within_limits(mut self) -> Self {
        self.max_outstanding = self.max_outstanding.max(1);
        self.expires = self.expires.clamp(Duration::from_secs(1), Duration::from_secs(300));
        self.heartbeat = self.heartbeat.clamp(Duration::from_millis(200), self.expires / 3);
        self
    }
}

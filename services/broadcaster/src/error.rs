//! Why a broadcaster cannot start or continue.

/// What ends a broadcaster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client for webhooks.
    #[error("making the client for webhooks")]
    Egress(#[from] agentforge_egress::DialerError),
    /// Requests did not end; their messages come again.
    #[error("{0} requests were neither finished nor handed back within the grace period")]
    Unsettled(usize),
}

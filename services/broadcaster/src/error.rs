//! Why a broadcaster cannot start or continue, and how errors are written out.

/// What ends a broadcaster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client for webhooks.
    #[error("making the client for webhooks")]
    Egress(#[from] agentforge_egress::DialerError),
    /// Requests did not end; their messages are redelivered.
    #[error("{0} requests were neither finished nor handed back within the grace period")]
    Unsettled(usize),
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

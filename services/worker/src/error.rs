//! Why a worker cannot start or continue.

/// What ends a worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The http tool's client could not be made.
    #[error("making the http tool")]
    Egress(#[from] agentforge_egress::Error),
    /// Two tools have one name.
    #[error("collecting the tools")]
    Tools(#[from] crate::tools::ToolboxError),
    /// The lifeline did not start, or ended.
    #[error("the lifeline")]
    Lifeline(#[from] crate::lifeline::Error),
    /// A defect: pulling must continue until the stop.
    #[error("the loop of queue {0} ended although it must run until the stop")]
    LoopEnded(String),
    /// Tools did not let go of their threads; JetStream gives their jobs to another worker.
    #[error("{0} jobs were neither finished nor handed back within the grace period")]
    Unsettled(usize),
}

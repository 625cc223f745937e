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
    /// The program could not ask what this machine confines.
    #[error("asking what this machine can confine; it starts this program again, through /proc/self/exe")]
    Confinement(#[source] std::io::Error),
    /// A command of the tools file must have no network, which this machine cannot give it.
    #[error("tool {tool:?} has `network = false` in WORKER_TOOLS_FILE, which needs root or user namespaces: {problem}")]
    Network {
        /// The tool.
        tool: agentforge_message_id::ToolName,
        /// What the kernel said.
        problem: String,
    },
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

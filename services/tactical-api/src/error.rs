//! Why the tactical API cannot start or continue.

/// What ends the tactical API.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The threads of the fan-out.
    #[error("starting the fan-out")]
    FanOut(#[source] std::io::Error),
    /// The stream is there and is not ours.
    #[error("checking the stream of markers and zones")]
    Topology(#[from] agentforge_jetstream::topology::Error),
    /// A defect: a thread of the fan-out ended by a panic.
    #[error("a thread of the fan-out ended although it must run until the stop")]
    FanOutEnded,
}

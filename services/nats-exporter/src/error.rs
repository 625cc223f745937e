//! Why the exporter cannot start.

/// What ends the exporter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client towards the servers.
    #[error("setting up the client of the monitoring endpoints")]
    Client(#[from] crate::client::Error),
}

//! Why the exporter cannot start.

use std::path::PathBuf;

/// What ends the exporter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client towards the servers.
    #[error("setting up the client of the monitoring endpoints")]
    Client(#[from] crate::client::Error),
    /// A file of the port's TLS.
    #[error("cannot use {path} (set by {setting})")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Its setting.
        setting: &'static str,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or the authorities are none.
    #[error("setting up TLS of the page's port")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

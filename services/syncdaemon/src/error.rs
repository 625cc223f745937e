//! Why a syncdaemon cannot start or cannot continue. A link or a hub that is unavailable is not an error.

use std::path::PathBuf;

/// What ends a syncdaemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The replay directory cannot be used.
    #[error("the replay directory {} (SYNC_QUEUE_DIR)", path.display())]
    QueueDir {
        /// The directory that SYNC_QUEUE_DIR names.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The ledger cannot be opened.
    #[error("the ledger in {} (SYNC_LEDGER_DIR)", path.display())]
    Ledger {
        /// The directory of the ledger's files.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Queue and ledger do not lie apart.
    #[error("SYNC_LEDGER_DIR: {0}")]
    NotApart(String),
    /// The system gave no thread.
    #[error("start the thread {name}")]
    Thread {
        /// What the thread was to be called.
        name: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A thread panicked; the log has its message.
    #[error("the thread {0} panicked")]
    Panicked(&'static str),
}

//! What can go wrong in the chassis itself. Each text says what was attempted; causes are sources.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// An error of the chassis.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener could not be opened.
    #[error("cannot listen on {address} (set by {setting}{hint})")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The setting that chose the port.
        setting: &'static str,
        /// What to do about it.
        hint: &'static str,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// An open listener could not be asked for its address or serve.
    #[error("cannot serve HTTP")]
    Serve(#[source] std::io::Error),
    /// A file of a listener's TLS cannot be used.
    #[error("cannot use {path} (set by {setting})")]
    Pem {
        /// The file that cannot be used.
        path: PathBuf,
        /// The name of the setting that names the file.
        setting: &'static str,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// What a file of a listener's TLS holds cannot be used, or does not fit the others.
    #[error("cannot use {path} (set by {setting}) for TLS of a listener")]
    Tls {
        /// The file whose content cannot be used.
        path: PathBuf,
        /// The name of the setting that names the file.
        setting: &'static str,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ready file could not be written.
    #[error("cannot write the ready file {path} (set by READY_FILE)")]
    ReadyFile {
        /// The file that READY_FILE names.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Signal handlers could not be installed.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// A task whose end is fatal ended.
    #[error("a task ended that must keep running")]
    Task(#[source] Arc<TaskFailure>),
    /// Tasks were still running at the deadline of the stop; they were ended.
    #[error("still running when the grace period ended: {}", tasks.join(", "))]
    Unfinished {
        /// The tasks' names.
        tasks: Vec<&'static str>,
    },
}

/// Why the service must stop.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailure {
    /// The task returned an error.
    #[error("task {task} failed")]
    Failed {
        /// The task's name.
        task: &'static str,
        /// What it returned.
        #[source]
        source: anyhow::Error,
    },
    /// The task panicked.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// The task's name.
        task: &'static str,
        /// The panic's message.
        message: String,
    },
    /// The task ended without an error, before the stop.
    #[error("task {task} ended although it must run until the stop")]
    EndedEarly {
        /// The task's name.
        task: &'static str,
    },
}

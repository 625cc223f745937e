//! A command as the tools file declares it, checked.

use std::{ffi::OsString, path::PathBuf, time::Duration};

/// A declared command, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// The command's `argv[0]` and arguments.
    pub argv: Vec<String>,
    /// Where it runs; the worker's own directory when absent.
    pub working_dir: Option<PathBuf>,
    /// Its whole environment, apart from the job's own variables.
    pub env: Vec<(OsString, OsString)>,
    /// Its own limit, in addition to the job's.
    pub timeout: Option<Duration>,
    /// Address space of each of its processes, bytes.
    pub memory_max_bytes: Option<u64>,
    /// Longest output, bytes.
    pub output_max_bytes: usize,
}

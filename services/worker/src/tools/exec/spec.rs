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
    /// Longest output, bytes.
    pub output_max_bytes: usize,
    /// Which files it may open.
    pub files: Files,
    /// Whether it has the worker's network; else it has none.
    pub network: bool,
    /// As whom it runs; as the worker's own user when absent.
    pub user: Option<User>,
    /// How much of the machine it may use.
    pub limits: Limits,
}

/// Which files a command may open. Enforced by the kernel (Landlock).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// All that its user may open; it may also send signals to other processes of that user.
    Any,
    /// The system's programs and libraries, the files that its argv names, its temporary directory, and these.
    Only {
        /// Files and directories that it may read and execute.
        read: Vec<String>,
        /// Files and directories that it may read, write and execute.
        write: Vec<String>,
    },
}

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group; the command is in no other.
    pub gid: u32,
}

/// What a command and all its descendants may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space of each process, and memory that is private to the processes together, bytes.
    pub memory_max_bytes: Option<u64>,
    /// Processes at once.
    pub processes_max: u32,
    /// Open files of each process.
    pub open_files_max: u64,
    /// Length of each file that a process writes, bytes.
    pub file_max_bytes: u64,
    /// What the temporary directory may hold, bytes.
    pub temp_max_bytes: u64,
    /// Processor time of each process.
    pub cpu_max: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_max_bytes: None,
            processes_max: 256,
            open_files_max: 1024,
            file_max_bytes: 1 << 30,
            temp_max_bytes: 1 << 30,
            cpu_max: None,
        }
    }
}

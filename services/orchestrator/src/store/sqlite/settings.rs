//! How the file is opened, for all connections that write.

use std::time::Duration;

/// How long SQLite waits for a lock of its own (only a backup or a checkpoint can hold one).
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Pages that the connection for commits keeps in memory, KiB.
pub(super) const CACHE_KIB: u32 = 32_768;
/// The same of the one for what is asked seldom.
pub(super) const SMALL_CACHE_KIB: u32 = 4_096;
/// The log is cut to this length whenever it restarts, bytes.
pub(super) const LOG_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// The writer copies the log back by itself at this length, pages of 4 KiB: only when the keeper is stuck.
pub(super) const LOG_PAGES_OF_LAST_RESORT: u32 = 65_536;

//! Options of every command: in which form, where artifacts go, and what time it is.

use jiff::Timestamp;
use std::path::PathBuf;

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Print JSON, one document per line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Artifacts go below status/ of this directory
    #[arg(long, global = true, value_name = "DIR", default_value = ".", help_heading = "Global options")]
    pub output: PathBuf,
    /// The moment that is taken for now, RFC 3339 [default: SOURCE_DATE_EPOCH, else the clock]
    #[arg(long, global = true, value_name = "TIME", help_heading = "Global options")]
    pub at: Option<Timestamp>,
}

//! What the database answers when it cannot do as asked.

use std::path::PathBuf;

/// SQLSTATE classes and codes that pass: connections, resources, operator's work, a standby, a lost race.
const PASSING: [&str; 8] = ["08", "53", "57", "58", "40001", "40P01", "25006", "55P03"];
/// SQLite's codes that pass: busy, locked, out of memory, I/O, full, cannot be opened, read-only.
const PASSING_SQLITE: [i64; 7] = [5, 6, 7, 10, 13, 14, 8];

/// What went wrong in the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Passing: connection lost, database locked, disk full. Nothing was committed.
    #[error("the database is unavailable while trying to {attempted}")]
    Unavailable {
        /// What was attempted.
        attempted: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The statement or the data is wrong: trying again does not help.
    #[error("the database refused to {attempted}")]
    Refused {
        /// What was attempted.
        attempted: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A row that this version cannot read.
    #[error("a stored {what} cannot be read: {problem}")]
    Corrupt {
        /// Which kind of row.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The schema is not what this version expects.
    #[error("the schema cannot be migrated: {0}")]
    Migration(String),
    /// The file cannot be made.
    #[error("{0} cannot be made (DATABASE_URL, DATA_DIR)")]
    Folder(PathBuf, #[source] std::io::Error),
    /// DATABASE_URL is not usable.
    #[error("DATABASE_URL: {0}")]
    Url(String),
}

impl Error {
    /// What the database said, while something was attempted.
    pub fn to(attempted: &'static str) -> impl FnOnce(sqlx::Error) -> Self + Copy {
        move |source| {
            if is_passing(&source) {
                Self::Unavailable { attempted, source }
            } else {
                Self::Refused { attempted, source }
            }
        }
    }

    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Folder(..))
    }

    /// Whether a row with the same key exists.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Refused { source: sqlx::Error::Database(said), .. } if said.is_unique_violation())
    }
}

fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        sqlx::Error::Database(said) => {
            let code = said.code().unwrap_or_default();
            match code.parse::<i64>() {
                // SQLite's are numbers with the reason in the upper bits; a SQLSTATE has five characters.
                Ok(number) if code.len() != 5 => PASSING_SQLITE.contains(&(number & 0xff)),
                _ => PASSING.iter().any(|class| code.starts_with(class)),
            }
        }
        _ => false,
    }
}

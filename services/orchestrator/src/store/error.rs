//! What stores answer when they cannot do as asked.

use super::codes;

/// What went wrong in a database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Passing: connection lost, database locked, disk full, a standby. Nothing was committed.
    #[error("the database is unavailable while trying to {attempted}")]
    Unavailable {
        /// What was attempted.
        attempted: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The statement or the data is wrong: trying again will not help.
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
    /// DATABASE_URL is not usable.
    #[error("DATABASE_URL: {0}")]
    Url(String),
    /// Another process has the SQLite file open for writing.
    #[error(
        "{0} is in use by another process; stop it, or let several orchestrators share a Postgres (DATABASE_URL=postgres://…)"
    )]
    InUse(std::path::PathBuf),
    /// The file that was opened is not the one at its path any more. What is written goes nowhere.
    #[error(
        "{0} was removed or replaced while the orchestrator has it open: nothing is stored. Stop the orchestrator, put \
         the original file or a backup (agentforge restore) in its place, and start it again"
    )]
    Gone(std::path::PathBuf),
    /// The file is not a database, or a damaged one.
    #[error("{0} is damaged or not a SQLite database: replace it by a backup (agentforge restore)")]
    Damaged(std::path::PathBuf, #[source] sqlx::Error),
    /// The database belongs to another mission.
    #[error(
        "this database holds the jobs of mission {found}, and MISSION is {ours}: two missions on one database would take \
         each other's jobs. Set MISSION={found}, or give {ours} a database of its own (DATABASE_URL); to hand the database \
         over for good, stop all orchestrators and run: UPDATE installation SET value = '{ours}' WHERE name = 'mission'"
    )]
    OtherMission {
        /// Whose it is.
        found: String,
        /// Who wants it.
        ours: String,
    },
    /// Statements of one session reach different ones of the server.
    #[error(
        "a connection pooler in transaction mode is in between: {0}. Sessions are needed (prepared statements, SET): \
         point DATABASE_URL at the server itself or at a port of the pooler with pool_mode = session"
    )]
    Pooler(String),
    /// A backup or restore did not end well.
    #[error("{attempted}: {problem}")]
    Copy {
        /// What was attempted.
        attempted: &'static str,
        /// Why it did not work and what to do.
        problem: String,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Gone(_))
    }

    /// What is wrong, for callers, where more is known than that the database is unavailable.
    pub fn in_short(&self) -> Option<&'static str> {
        match self {
            Self::Gone(_) => Some("its file was removed or replaced (see the orchestrator's log)"),
            Self::Unavailable { source, .. } => codes::in_short(source),
            _ => None,
        }
    }

    /// Itself and all causes, in one line.
    pub fn chain(&self) -> String {
        let (mut text, mut next) = (self.to_string(), std::error::Error::source(self));
        while let Some(e) = next {
            text = format!("{text}: {e}");
            next = e.source();
        }
        text
    }
}

//! Inner errors of the stores, and what they mean to callers: passing or lasting.

use super::codes;
use super::error::Error;

/// What a store's own function may fail with, before it is known what the caller attempted.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database's word.
    Sql(sqlx::Error),
    /// A row that cannot be read.
    Row { what: &'static str, problem: String },
}

impl Fault {
    pub(super) fn row(what: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Row { what, problem: problem.to_string() }
    }

    /// The error as callers see it.
    pub(super) fn trying_to(self, attempted: &'static str) -> Error {
        match self {
            Self::Row { what, problem } => Error::Corrupt { what, problem },
            Self::Sql(source) if codes::is_passing(&source) => Error::Unavailable { attempted, source },
            Self::Sql(source) => Error::Refused { attempted, source },
        }
    }

    /// Whether the same transaction may succeed at once: two replicas met on the same rows.
    pub(super) fn is_collision(&self) -> bool {
        matches!(self, Self::Sql(e) if codes::is_conflict(e))
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        match e {
            rusqlite::Error::SqliteFailure(..) => Self::Sql(sqlx::Error::Database(Box::new(codes::LiteError::new(e)))),
            other => Self::row("row", other),
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(e: sqlx::Error) -> Self {
        Self::Sql(e)
    }
}

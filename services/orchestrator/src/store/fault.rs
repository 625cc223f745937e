//! Inner errors of the stores, and what they mean to callers: passing or lasting.
//!
//! The one place that reads SQLSTATEs and SQLite's result codes.

use super::Error;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

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
            Self::Sql(source) if is_passing(&source) => Error::Unavailable { attempted, source },
            Self::Sql(source) => Error::Refused { attempted, source },
        }
    }

    /// Whether the same transaction may succeed at once: two replicas met on the same rows.
    pub(super) fn is_collision(&self) -> bool {
        let Self::Sql(sqlx::Error::Database(e)) = self else { return false };
        // serialization_failure, deadlock_detected, unique_violation (a row that came after we looked)
        e.try_downcast_ref::<PgDatabaseError>().is_some_and(|e| matches!(e.code(), "40001" | "40P01" | "23505"))
    }
}

impl From<sqlx::Error> for Fault {
    fn from(e: sqlx::Error) -> Self {
        Self::Sql(e)
    }
}

fn is_passing(e: &sqlx::Error) -> bool {
    match e {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed
        | sqlx::Error::InvalidSavePointStatement => true,
        sqlx::Error::Database(e) => is_passing_code(e.as_ref()),
        _ => false,
    }
}

fn is_passing_code(e: &dyn DatabaseError) -> bool {
    if let Some(pg) = e.try_downcast_ref::<PgDatabaseError>() {
        let code = pg.code();
        // Classes: connection, resources (disk full), limits of the server, operator, system error; then
        // serialization, deadlock, lock not available, and a primary that became a standby.
        return ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class))
            || matches!(code, "40001" | "40P01" | "55P03" | "25006");
    }
    if e.try_downcast_ref::<SqliteError>().is_some() {
        let code = e.code().and_then(|c| c.parse::<i32>().ok()).unwrap_or(0);
        // BUSY, LOCKED, NOMEM, READONLY (a disk that fell back to it), IOERR, FULL, CANTOPEN
        return matches!(code & 0xff, 5 | 6 | 7 | 8 | 10 | 13 | 14);
    }
    false
}

//! What the SQLSTATEs of Postgres and the result codes of SQLite mean. The one place that reads them.

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;
use std::borrow::Cow;
use std::error::Error as StdError;

/// SQLite's word on a statement of the writer's own connection, as sqlx has it of others.
#[derive(Debug, thiserror::Error)]
#[error("(code: {code}) {message}")]
pub(super) struct LiteError {
    code: i32,
    message: String,
    #[source]
    source: rusqlite::Error,
}

impl LiteError {
    pub(super) fn new(source: rusqlite::Error) -> Self {
        let code = source.sqlite_error().map_or(1, |e| e.extended_code);
        Self { code, message: source.to_string(), source }
    }
}

impl DatabaseError for LiteError {
    fn message(&self) -> &str {
        &self.message
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.code.to_string().into())
    }
    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }
    fn kind(&self) -> ErrorKind {
        match self.code {
            1_555 | 2_067 => ErrorKind::UniqueViolation,
            _ => ErrorKind::Other,
        }
    }
}

/// Whether the same statement may succeed later: lost connections, full disks, locks, a standby.
pub(super) fn is_passing(e: &sqlx::Error) -> bool {
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
    // BUSY, LOCKED, NOMEM, READONLY (a disk that fell back to it), IOERR, FULL, CANTOPEN
    sqlite_code(e).is_some_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 8 | 10 | 13 | 14))
}

/// Whether two transactions met on the same rows: the same one may succeed at once.
pub(super) fn is_conflict(e: &sqlx::Error) -> bool {
    let sqlx::Error::Database(e) = e else { return false };
    // serialization_failure, deadlock_detected, unique_violation (a row that came after we looked)
    e.try_downcast_ref::<PgDatabaseError>().is_some_and(|e| matches!(e.code(), "40001" | "40P01" | "23505"))
}

/// The commonest causes in a few words, for callers.
pub(super) fn in_short(e: &sqlx::Error) -> Option<&'static str> {
    let sqlx::Error::Database(e) = e else {
        return matches!(e, sqlx::Error::PoolTimedOut)
            .then_some("no connection was free or could be made in time (DB_POOL, max_connections)");
    };
    if let Some(pg) = e.try_downcast_ref::<PgDatabaseError>() {
        return match pg.code() {
            "25006" => Some("it is read-only: a standby, or a primary that was made one"),
            "53100" => Some("its disk is full"),
            "53300" => Some("it has no connection left (max_connections)"),
            "57P01" | "57P02" | "57P03" => Some("it is shutting down or starting"),
            _ => None,
        };
    }
    match sqlite_code(e.as_ref())? & 0xff {
        5 | 6 => Some("another process holds its file"),
        8 => Some("its file is read-only"),
        13 => Some("its disk is full"),
        _ => None,
    }
}

/// Whether a session with this error leads to a server that is no longer the primary, or shuts down.
pub(super) fn is_left_behind(e: &sqlx::Error) -> bool {
    let sqlx::Error::Database(e) = e else { return false };
    e.try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|pg| pg.code() == "25006" || ["57P", "08"].iter().any(|class| pg.code().starts_with(class)))
}

/// Whether SQLite says that the file is damaged or no database.
pub(super) fn is_damage(e: &sqlx::Error) -> bool {
    let sqlx::Error::Database(e) = e else { return false };
    // CORRUPT, NOTADB
    sqlite_code(e.as_ref()).is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

fn sqlite_code(e: &dyn DatabaseError) -> Option<i32> {
    let is_sqlite = e.try_downcast_ref::<SqliteError>().is_some() || e.try_downcast_ref::<LiteError>().is_some();
    if is_sqlite { e.code()?.parse().ok() } else { None }
}

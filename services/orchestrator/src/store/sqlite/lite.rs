//! The connection that commits groups: prepared statements, one row at a time, on the thread that asks.
//!
//! sqlx runs SQLite on a thread of its own, and every statement is a message to it and back. That is right for reads, and
//! too much for a commit of a thousand small statements. Here a whole transaction runs on one thread of the runtime's
//! blocking pool: one hop there, one back.

use super::recent::Recent;
use super::settings::{BUSY_WAIT, CACHE_KIB, LOG_BYTES_MAX, LOG_PAGES_OF_LAST_RESORT};
use crate::store::columns::{FromLite, Plain, Record};
use crate::store::fault::Fault;
use crate::store::spec::Value;
use agentforge_audit::{Hash, Head};
use agentforge_message_id::JobId;
use rusqlite::types::{Null, ValueRef};
use rusqlite::{CachedStatement, Connection, OpenFlags, Row, ToSql};
use std::path::Path;

/// Statements that stay prepared: more than there are.
const STATEMENTS: usize = 64;

/// A connection of our own.
pub(super) struct Lite {
    connection: Connection,
    /// Statements that ran, one for each row that they were given.
    #[cfg(test)]
    pub(super) ran: std::cell::Cell<usize>,
}

/// What the writer knows without reading; a transaction that fails takes it along, and it is read again.
pub(super) struct Known {
    pub next_job: i64,
    pub next_outbox: i64,
    /// Jobs that need no reading.
    pub recent: Recent,
    /// The last entry of the audit log.
    pub audit: Head,
}

impl Default for Known {
    /// Of an empty database: it stands for what is with a transaction that runs.
    fn default() -> Self {
        let audit = Head { chain: 0, place: 0, hash: Hash::default() };
        Self { next_job: 1, next_outbox: 1, recent: Recent::default(), audit }
    }
}

/// The next of a row of numbers.
pub(super) fn take(next: &mut i64) -> i64 {
    let n = *next;
    *next += 1;
    n
}

impl Lite {
    /// Opens a file that exists, with the writer's settings.
    pub(super) fn open(file: &Path) -> Result<Self, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.execute_batch(&format!(
            "PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA synchronous = FULL; \
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA wal_autocheckpoint = {LOG_PAGES_OF_LAST_RESORT}; \
             PRAGMA journal_size_limit = {LOG_BYTES_MAX};"
        ))?;
        Ok(Self {
            connection,
            #[cfg(test)]
            ran: std::cell::Cell::default(),
        })
    }

    /// Notes that a statement ran; tests hold what a job costs.
    fn note(&self) {
        #[cfg(test)]
        self.ran.set(self.ran.get() + 1);
    }

    /// Runs `work` in a transaction, which an error undoes.
    pub(super) fn transaction<T>(&self, work: impl FnOnce(&Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.run("BEGIN IMMEDIATE")?;
        let done = work(self).and_then(|value| {
            self.run("COMMIT")?;
            Ok(value)
        });
        if done.is_err() {
            // SQLite may have done so by itself.
            let _ = self.run("ROLLBACK");
        }
        done
    }

    fn run(&self, sql: &str) -> Result<(), Fault> {
        self.note();
        self.connection.prepare_cached(sql)?.raw_execute()?;
        Ok(())
    }

    /// Runs a statement once for each row.
    pub(super) fn each<'r, T: 'r>(
        &self,
        sql: &str,
        rows: impl IntoIterator<Item = &'r T>,
        bind: impl Fn(&mut Parameters<'_, '_>, &'r T),
    ) -> Result<(), Fault> {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut statement = self.connection.prepare_cached(sql)?;
        for row in rows {
            self.note();
            Parameters::of(&mut statement, |p| bind(p, row))?;
            statement.raw_execute()?;
        }
        Ok(())
    }

    /// Runs a query once for each row, and gathers what is found.
    pub(super) fn find<'r, T: 'r, F>(
        &self,
        sql: &str,
        rows: impl IntoIterator<Item = &'r T>,
        bind: impl Fn(&mut Parameters<'_, '_>, &'r T),
        read: impl Fn(&Row<'_>) -> Result<F, Fault>,
    ) -> Result<Vec<F>, Fault> {
        let mut found = Vec::new();
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(found);
        }
        let mut statement = self.connection.prepare_cached(sql)?;
        for row in rows {
            self.note();
            Parameters::of(&mut statement, |p| bind(p, row))?;
            let mut results = statement.raw_query();
            while let Some(result) = results.next()? {
                found.push(read(result)?);
            }
        }
        Ok(found)
    }

    #[cfg(test)]
    pub(super) fn batch(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap();
    }
}

/// Binds a statement's parameters, one after the other. Text and bytes are copied by SQLite.
pub(super) struct Parameters<'s, 'c> {
    statement: &'s mut CachedStatement<'c>,
    place: usize,
    bound: rusqlite::Result<()>,
}

impl<'s, 'c> Parameters<'s, 'c> {
    fn of(statement: &'s mut CachedStatement<'c>, bind: impl FnOnce(&mut Self)) -> Result<(), Fault> {
        let mut parameters = Self { statement, place: 1, bound: Ok(()) };
        bind(&mut parameters);
        Ok(parameters.bound?)
    }

    fn bind(&mut self, value: impl ToSql) -> &mut Self {
        if self.bound.is_ok() {
            self.bound = self.statement.raw_bind_parameter(self.place, value);
        }
        self.place += 1;
        self
    }
}

/// How values become parameters of a statement, whichever library runs it.
pub(super) trait Bind {
    /// Adds a number, or NULL.
    fn number(&mut self, n: impl Into<Option<i64>>) -> &mut Self;
    /// Adds text, or NULL.
    fn text<'t>(&mut self, text: impl Into<Option<&'t str>>) -> &mut Self;
    /// Adds bytes, or NULL.
    fn bytes<'b>(&mut self, bytes: impl Into<Option<&'b [u8]>>) -> &mut Self;

    /// Adds an id, as it is stored.
    fn id(&mut self, id: &JobId) -> &mut Self {
        self.bytes(id.as_bytes().as_slice())
    }

    /// Adds a value of a job's description.
    fn value(&mut self, value: &Value<'_>) -> &mut Self {
        match value {
            Value::Number(n) => self.number(*n),
            Value::Truth(truth) => self.number(i64::from(*truth)),
            Value::Text(text) => self.text(text.as_deref()),
            Value::Bytes(bytes) => self.bytes(*bytes),
        }
    }
}

impl Bind for Parameters<'_, '_> {
    fn number(&mut self, n: impl Into<Option<i64>>) -> &mut Self {
        self.bind(n.into())
    }

    fn text<'t>(&mut self, text: impl Into<Option<&'t str>>) -> &mut Self {
        match text.into() {
            Some(text) => self.bind(text),
            None => self.bind(Null),
        }
    }

    fn bytes<'b>(&mut self, bytes: impl Into<Option<&'b [u8]>>) -> &mut Self {
        match bytes.into() {
            Some(bytes) => self.bind(bytes),
            None => self.bind(Null),
        }
    }
}

impl Record for Row<'_> {
    fn plain<'r, T: Plain<'r>>(&'r self, column: &str) -> Result<T, Fault> {
        let value: ValueRef<'r> = self.get_ref(column)?;
        T::from_lite(value).ok_or_else(|| Fault::row("row", format_args!("{column} is {}", value.data_type())))
    }
}

impl<'r, T: FromLite<'r>> FromLite<'r> for Option<T> {
    fn from_lite(value: ValueRef<'r>) -> Option<Self> {
        if matches!(value, ValueRef::Null) { Some(None) } else { T::from_lite(value).map(Some) }
    }
}

macro_rules! from_lite {
    ($($Type:ty: |$value:ident| $read:expr;)*) => {
        $(impl<'r> FromLite<'r> for $Type {
            fn from_lite($value: ValueRef<'r>) -> Option<Self> {
                $read
            }
        })*
    };
}

from_lite! {
    i64: |value| value.as_i64().ok();
    i16: |value| value.as_i64().ok()?.try_into().ok();
    bool: |value| Some(value.as_i64().ok()? != 0);
    &'r str: |value| value.as_str().ok();
    String: |value| Some(value.as_str().ok()?.to_owned());
    &'r [u8]: |value| value.as_blob().ok();
    Vec<u8>: |value| Some(value.as_blob().ok()?.to_vec());
}

//! Statements over many rows, for what is not a commit of a group: that has a connection of its own.
//!
//! Every statement is a round trip to the connection's thread, so few of them are sent: rows go
//! in chunks whose sizes are powers of two, so that all statements stay prepared. A chunk that is not
//! full leaves its last parameters unbound; SQLite takes those for NULL, and no statement here does
//! anything with a row or a member that is NULL.

use super::lite::Bind;
use agentforge_message_id::JobId;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Sqlite, Type, query_with};
use std::sync::Arc;

/// Rows in one statement at most: 20 columns of them stay well below SQLite's 32,766 parameters.
const CHUNK_ROWS_MAX: usize = 512;

/// A statement over a list of rows, in each of its sizes.
pub(super) struct Batch {
    columns: usize,
    by_power: Vec<Arc<str>>,
}

impl Batch {
    /// `INSERT INTO table (names) <rows> tail`. The first name is a column that is never NULL.
    pub(super) fn insert(table: &str, names: &[&str], tail: &str) -> Self {
        let list = names.join(", ");
        let row = format!("({})", vec!["?"; names.len()].join(","));
        // "WHERE" also distinguishes an upsert's ON CONFLICT from a join's ON.
        Self::new(names.len(), |n| {
            let rows = vec![row.as_str(); n].join(",");
            format!("INSERT INTO {table} ({list}) SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL {tail}")
        })
    }

    /// `head (<members>) tail`, where `head` ends in `IN`; its own parameters come first.
    pub(super) fn list(head: &str, tail: &str) -> Self {
        Self::new(1, |n| format!("{head} ({}) {tail}", vec!["?"; n].join(",")))
    }

    fn new(columns: usize, sql: impl Fn(usize) -> String) -> Self {
        let sizes = (0..=CHUNK_ROWS_MAX.ilog2()).map(|power| 1 << power);
        Self { columns, by_power: sizes.map(|n| sql(n).into()).collect() }
    }

    /// Runs the statement over all `rows`, in order; says how many rows it changed.
    pub(super) async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<u64, sqlx::Error> {
        self.execute_with(connection, |_| {}, rows, bind).await
    }

    /// As `execute`, with parameters before the rows.
    pub(super) async fn execute_with<T>(
        &self,
        connection: &mut SqliteConnection,
        lead: impl Fn(&mut Args),
        rows: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<u64, sqlx::Error> {
        let mut changed = 0;
        for (sql, args) in self.chunks(lead, rows, bind) {
            changed += query_with(AssertSqlSafe(sql), args).execute(&mut *connection).await?.rows_affected();
        }
        Ok(changed)
    }

    /// Runs the statement over all `rows` and gathers what it finds.
    pub(super) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut found = Vec::new();
        for (sql, args) in self.chunks(|_| {}, rows, bind) {
            found.append(&mut query_with(AssertSqlSafe(sql), args).fetch_all(&mut *connection).await?);
        }
        Ok(found)
    }

    fn chunks<T>(
        &self,
        lead: impl Fn(&mut Args),
        rows: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Vec<(Arc<str>, SqliteArguments)> {
        let chunks = rows.chunks(CHUNK_ROWS_MAX).map(|chunk| {
            let mut args = Args(SqliteArguments::default());
            args.0.reserve(chunk.len() * self.columns + 4, 0);
            lead(&mut args);
            chunk.iter().for_each(|row| bind(&mut args, row));
            let power = chunk.len().next_power_of_two().ilog2() as usize;
            (Arc::clone(&self.by_power[power]), args.0)
        });
        chunks.collect()
    }
}

/// Parameters of one statement.
pub(super) struct Args(SqliteArguments);

impl Args {
    /// Adds the next parameter: a number, a truth value, or something owned.
    pub(super) fn push<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        self.0.add(value).expect("integers, booleans, text and bytes always encode");
        self
    }
}

impl Bind for Args {
    fn number(&mut self, n: impl Into<Option<i64>>) -> &mut Self {
        self.push(n.into())
    }

    fn text<'t>(&mut self, text: impl Into<Option<&'t str>>) -> &mut Self {
        self.push(text.into().map(Arc::<str>::from))
    }

    fn bytes<'b>(&mut self, bytes: impl Into<Option<&'b [u8]>>) -> &mut Self {
        self.push(bytes.into().map(<[u8]>::to_vec))
    }
}

/// Runs a statement over one row.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    sql: &str,
    bind: impl FnOnce(&mut Args),
) -> Result<(), sqlx::Error> {
    let mut args = Args(SqliteArguments::default());
    bind(&mut args);
    query_with(AssertSqlSafe(sql.to_owned()), args.0).execute(connection).await?;
    Ok(())
}

/// Adds an id, as it is stored.
pub(super) fn push_id(a: &mut Args, id: &JobId) {
    a.push(id.as_bytes().to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(batch: &Batch, rows: usize) -> Vec<(usize, usize)> {
        let numbers: Vec<i64> = (0..).take(rows).collect();
        let chunks = batch.chunks(|_| {}, &numbers, |a, n| _ = a.push(*n));
        chunks.iter().map(|(sql, a)| (sql.matches('?').count(), sqlx::Arguments::len(a))).collect()
    }

    #[test]
    fn a_chunk_is_the_next_power_of_two_and_may_be_partly_unbound() {
        let list = Batch::list("DELETE FROM t WHERE seq IN", "");
        assert_eq!(sizes(&list, 0), []);
        assert_eq!(sizes(&list, 1), [(1, 1)]);
        assert_eq!(sizes(&list, 3), [(4, 3)]);
        assert_eq!(sizes(&list, 700), [(512, 512), (256, 188)]);
    }
}

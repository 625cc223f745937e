//! Statements over many rows.
//!
//! Every statement is a round trip to the connection's thread, so a commit sends few of them: rows go
//! in chunks whose sizes are powers of two, so that all statements stay prepared. A chunk that is not
//! full leaves its last parameters unbound; SQLite takes those for NULL, and no statement here does
//! anything with a row or a member that is NULL.

use super::connection::COMPLETED;
use crate::store::Group;
use crate::store::spec::Value;
use agentforge_message_id::JobId;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Executor as _, Sqlite, Type, query_with};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Rows in one statement at most: 20 columns of them stay well below SQLite's 32,766 parameters.
const CHUNK_ROWS_MAX: usize = 512;

/// A statement over a list of rows, in each of its sizes.
pub(super) struct Batch {
    columns: usize,
    by_power: Vec<Arc<str>>,
}

impl Batch {
    /// `INSERT INTO table (names) <rows> tail`. A name may be followed by `=` and a constant, which
    /// then is no parameter. The first name is a column that is never NULL.
    pub(super) fn insert(table: &str, names: &[&str], tail: &str) -> Self {
        let parts: Vec<(&str, &str)> = names.iter().map(|n| n.split_once('=').unwrap_or((n, "?"))).collect();
        let list = parts.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let row = format!("({})", parts.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(","));
        let columns = parts.iter().filter(|(_, value)| *value == "?").count();
        // "WHERE" also distinguishes an upsert's ON CONFLICT from a join's ON.
        Self::new(columns, |n| {
            let rows = vec![row.as_str(); n].join(",");
            format!("INSERT INTO {table} ({list}) SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL {tail}")
        })
    }

    /// `WITH n (names) AS (<rows>) tail`, where `tail` compares the first of `names` with `=`.
    pub(super) fn with(names: &str, tail: &str) -> Self {
        let columns = names.split(',').count();
        let row = format!("({})", vec!["?"; columns].join(","));
        Self::new(columns, |n| {
            let rows = vec![row.as_str(); n].join(",");
            format!("WITH n ({names}) AS (VALUES {rows}) {tail}")
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

    /// Adds the statement over all `rows` to a script.
    pub(super) fn add<T>(&self, script: &mut Script, rows: &[T], bind: impl Fn(&mut Args, &T)) {
        self.add_with(script, |_| {}, rows, bind);
    }

    /// As `add`, with parameters before the rows.
    pub(super) fn add_with<T>(
        &self,
        script: &mut Script,
        lead: impl Fn(&mut Args),
        rows: &[T],
        bind: impl Fn(&mut Args, &T),
    ) {
        match script {
            Script::Steps(steps) => steps.extend(self.chunks(lead, rows, bind)),
            Script::Joined(sql, args) => {
                for chunk in rows.chunks(CHUNK_ROWS_MAX) {
                    lead(args);
                    chunk.iter().for_each(|row| bind(args, row));
                    let size = chunk.len().next_power_of_two();
                    // In the middle of a script nothing may be left unbound.
                    for _ in 0..(size - chunk.len()) * self.columns {
                        args.push(None::<i64>);
                    }
                    sql.push_str(&self.by_power[size.ilog2() as usize]);
                    sql.push(';');
                }
            }
        }
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

    /// The statement in its largest size.
    #[cfg(test)]
    pub(super) fn largest(&self) -> &str {
        self.by_power.last().expect("there is a size for each power")
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

/// Statements that are run one after the other, without checking what they did.
///
/// A small script is sent as one text, which is one round trip to the connection's thread instead of
/// one for each statement; a large one in steps, each of which stays prepared by itself.
pub(super) enum Script {
    /// One text and the parameters of all its statements.
    Joined(String, Args),
    /// Statements with parameters of their own.
    Steps(Vec<(Arc<str>, SqliteArguments)>),
}

/// Writes of a group up to which its script is joined: their shapes are few enough to stay prepared.
const JOINED_WRITES_MAX: usize = 16;
/// The same for a group of nothing but marks, which is one to three statements.
const JOINED_MARKS_MAX: usize = 128;
/// A joined script is through in a fraction of this, where the disk is as usual.
const THROUGH_WITHIN: Duration = Duration::from_millis(5);

impl Script {
    /// An empty script for a group.
    pub(super) fn for_group(group: &Group) -> Self {
        let joined_max = if group.is_marks() { JOINED_MARKS_MAX } else { JOINED_WRITES_MAX };
        if group.len() <= joined_max {
            Self::Joined(String::new(), Args(SqliteArguments::default()))
        } else {
            Self::Steps(Vec::new())
        }
    }

    /// Adds a statement without parameters.
    pub(super) fn add_plain(&mut self, statement: &'static str) {
        match self {
            Self::Joined(sql, _) => {
                sql.push_str(statement);
                sql.push(';');
            }
            Self::Steps(steps) => steps.push((statement.into(), SqliteArguments::default())),
        }
    }

    /// Runs all of it. `completed` is the writer's own, notified by [`COMPLETED`] at the end of a script that ends the
    /// transaction.
    pub(super) async fn run(
        self,
        connection: &mut SqliteConnection,
        completed: Option<&Notify>,
    ) -> Result<(), sqlx::Error> {
        match self {
            Self::Joined(sql, _) if sql.is_empty() => {}
            Self::Joined(mut sql, args) => {
                if completed.is_some() {
                    sql.push_str(COMPLETED);
                }
                let mut results = connection.fetch_many(query_with(AssertSqlSafe(sql), args.0));
                if let Some(completed) = completed {
                    let _stale = completed.notified().now_or_never();
                    // Sends the script and asks for no wake-up: each statement of it would bring one, and
                    // the thread that runs them would stop to give it. One is due when all is done; a
                    // script that fails, or takes longer, is looked after then.
                    match results.next().now_or_never() {
                        Some(None) => return Ok(()),
                        Some(Some(result)) => _ = result?,
                        None => _ = timeout(THROUGH_WITHIN, completed.notified()).await,
                    }
                }
                while results.try_next().await?.is_some() {}
            }
            Self::Steps(steps) => {
                for (sql, args) in steps {
                    query_with(AssertSqlSafe(sql), args).execute(&mut *connection).await?;
                }
            }
        }
        Ok(())
    }
}

/// Parameters of one statement, or of all statements of a joined script.
pub(super) struct Args(SqliteArguments);

impl Args {
    /// Adds the next parameter: a number, a truth value, or something owned.
    pub(super) fn push<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        self.0.add(value).expect("integers, booleans, text and bytes always encode");
        self
    }

    /// Binds text as the next argument.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        // One allocation, where sqlx would make two of a &str.
        self.push(Arc::<str>::from(text))
    }

    /// Adds a value of a job's description.
    pub(super) fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Number(n) => self.push(n),
            Value::Truth(truth) => self.push(truth),
            Value::Text(text) => self.maybe_text(text.as_deref()),
            Value::Bytes(bytes) => self.push(bytes.map(<[u8]>::to_vec)),
        };
    }

    /// Adds text, or NULL.
    pub(super) fn maybe_text(&mut self, text: Option<&str>) -> &mut Self {
        self.push(text.map(Arc::<str>::from))
    }
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

    #[test]
    fn constants_are_no_parameters() {
        let batch = Batch::insert("t", &["a", "b=1", "c"], "");
        assert_eq!(batch.columns, 2);
        assert_eq!(
            batch.by_power[1].as_ref(),
            "INSERT INTO t (a, b, c) SELECT * FROM (VALUES (?,1,?),(?,1,?)) WHERE column1 IS NOT NULL "
        );
    }
}

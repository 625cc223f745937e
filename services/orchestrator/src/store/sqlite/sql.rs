//! Statements over many rows.
//!
//! Every statement is a round trip to the connection's thread, so a commit sends few of them: rows
//! go in chunks of powers of two, which keeps the number of different statements small enough for all
//! of them to stay prepared.

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Sqlite, Type, query_with};
use std::sync::Arc;

/// Rows in one statement at most: 29 columns of them stay below SQLite's 32,766 parameters.
const CHUNK_ROWS_MAX: usize = 256;

/// A statement with `VALUES (?,…), …`, in each of its sizes.
pub(super) struct Rows {
    columns: usize,
    by_power: Vec<Arc<str>>,
}

impl Rows {
    /// `head VALUES rows tail`, each row of `columns` parameters.
    pub(super) fn new(head: &str, columns: usize, tail: &str) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        let by_power = sizes().map(|n| {
            let rows = vec![row.as_str(); n].join(",");
            format!("{head} VALUES {rows} {tail}").into()
        });
        Self { columns, by_power: by_power.collect() }
    }

    /// Runs the statement over all `rows`, in order.
    pub(super) async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<(), sqlx::Error> {
        for (sql, args) in self.chunks(rows, bind) {
            query_with(AssertSqlSafe(sql), args).execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Runs the statement over all `rows` and gathers what it returns.
    pub(super) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut found = Vec::new();
        for (sql, args) in self.chunks(rows, bind) {
            found.extend(query_with(AssertSqlSafe(sql), args).fetch_all(&mut *connection).await?);
        }
        Ok(found)
    }

    fn chunks<T>(&self, mut rows: &[T], bind: impl Fn(&mut Args, &T)) -> Vec<(Arc<str>, SqliteArguments)> {
        let mut chunks = Vec::new();
        while !rows.is_empty() {
            let power = rows.len().min(CHUNK_ROWS_MAX).ilog2() as usize;
            let (chunk, rest) = rows.split_at(1 << power);
            let mut args = Args::with_room_for(chunk.len() * self.columns);
            chunk.iter().for_each(|row| bind(&mut args, row));
            chunks.push((Arc::clone(&self.by_power[power]), args.0));
            rows = rest;
        }
        chunks
    }
}

/// A statement with `IN (?, …)`, in each of its sizes; what is left of a size is filled by repeating.
pub(super) struct In {
    by_power: Vec<Arc<str>>,
}

impl In {
    /// `head IN (…) tail`. Parameters before the list are numbered `?1`, `?2`… in `head` and are
    /// `leading` in number.
    pub(super) fn new(head: &str, leading: usize, tail: &str) -> Self {
        let by_power = sizes().map(|n| {
            let list = (1..=n).map(|i| format!("?{}", i + leading)).collect::<Vec<_>>().join(",");
            format!("{head} IN ({list}) {tail}").into()
        });
        Self { by_power: by_power.collect() }
    }

    /// Runs the statement for all `members`; each must be there once.
    pub(super) async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        lead: impl Fn(&mut Args),
        members: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<u64, sqlx::Error> {
        let mut affected = 0;
        for (sql, args) in self.chunks(lead, members, bind) {
            affected += query_with(AssertSqlSafe(sql), args).execute(&mut *connection).await?.rows_affected();
        }
        Ok(affected)
    }

    /// Runs the statement for all `members` and gathers what it returns.
    pub(super) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        members: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut found = Vec::new();
        for (sql, args) in self.chunks(|_| {}, members, bind) {
            found.extend(query_with(AssertSqlSafe(sql), args).fetch_all(&mut *connection).await?);
        }
        Ok(found)
    }

    fn chunks<T>(
        &self,
        lead: impl Fn(&mut Args),
        members: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Vec<(Arc<str>, SqliteArguments)> {
        let chunks = members.chunks(CHUNK_ROWS_MAX).map(|chunk| {
            let size = chunk.len().next_power_of_two();
            let mut args = Args::with_room_for(size + 4);
            lead(&mut args);
            chunk.iter().cycle().take(size).for_each(|member| bind(&mut args, member));
            (Arc::clone(&self.by_power[size.ilog2() as usize]), args.0)
        });
        chunks.collect()
    }
}

fn sizes() -> impl Iterator<Item = usize> {
    (0..=CHUNK_ROWS_MAX.ilog2()).map(|power| 1 << power)
}

/// Parameters of one statement.
pub(super) struct Args(SqliteArguments);

impl Args {
    fn with_room_for(n: usize) -> Self {
        let mut args = SqliteArguments::default();
        args.reserve(n, 0);
        Self(args)
    }

    /// Adds the next parameter.
    pub(super) fn push<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        self.0.add(value).expect("integers, booleans, text and bytes always encode");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_powers_of_two_and_in_order() {
        let rows = Rows::new("INSERT INTO t", 2, "");
        let numbers: Vec<i64> = (0..300).collect();
        let chunks = rows.chunks(&numbers, |a, n| {
            a.push(*n).push(*n);
        });
        let sizes: Vec<_> = chunks.iter().map(|(_, a)| sqlx::Arguments::len(a) / 2).collect();
        assert_eq!(sizes, [256, 32, 8, 4]);
        assert_eq!(chunks[3].0.as_ref(), "INSERT INTO t VALUES (?,?),(?,?),(?,?),(?,?) ");
    }

    #[test]
    fn lists_are_filled_up_by_repeating() {
        let list = In::new("DELETE FROM t WHERE x > ?1 AND id", 1, "");
        let chunks = list.chunks(
            |a| {
                a.push(7_i64);
            },
            &[1_i64, 2, 3],
            |a, n| {
                a.push(*n);
            },
        );
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].0.as_ref(), "DELETE FROM t WHERE x > ?1 AND id IN (?2,?3,?4,?5) ");
        assert_eq!(sqlx::Arguments::len(&chunks[0].1), 5);
    }
}

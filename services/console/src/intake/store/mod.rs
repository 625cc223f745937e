//! Items and the events that wait, in SQLite or Postgres.
//!
//! A change and its event are one transaction. The number of an event comes from a row that each change updates, so that
//! numbers have no gaps and follow the order of the commits, also with several consoles on one database. A change runs
//! to its end when its caller goes away.

mod queries;
mod rows;
mod values;

pub use values::{Changed, Counts, Error, Filter, Limits};

use super::event::{Action, Event};
use super::item::Item;
use crate::store::Database;
use jiff::Timestamp;
use std::future::Future;
use uuid::Uuid;

mod sqlite {
    super::queries::queries!(sqlx::Sqlite, sqlx::SqliteConnection, for_update: "");
}
mod postgres {
    super::queries::queries!(sqlx::Postgres, sqlx::PgConnection, for_update: " FOR UPDATE");
}

/// The board's tables. Clones share the connections.
#[derive(Clone)]
pub struct Store {
    database: Database,
    limits: Limits,
}

/// Runs `$body` with `$c` as a connection inside a transaction of either database, which an error undoes.
macro_rules! in_transaction {
    ($store:expr, $queries:ident, $c:ident => $body:expr) => {
        match &$store.database {
            Database::Sqlite { writer, .. } => {
                use sqlite as $queries;
                let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
                let done: Result<_, Error> = {
                    let $c = &mut *transaction;
                    $body
                };
                transaction.commit_if(done).await
            }
            Database::Postgres(pool) => {
                use postgres as $queries;
                let mut transaction = pool.begin().await?;
                let done: Result<_, Error> = {
                    let $c = &mut *transaction;
                    $body
                };
                transaction.commit_if(done).await
            }
        }
    };
}

/// Runs `$body` with `$c` as a connection that only reads.
macro_rules! reading {
    ($store:expr, $queries:ident, $c:ident => $body:expr) => {
        match &$store.database {
            Database::Sqlite { readers, .. } => {
                use sqlite as $queries;
                let $c = &mut *readers.acquire().await?;
                $body
            }
            Database::Postgres(pool) => {
                use postgres as $queries;
                let $c = &mut *pool.acquire().await?;
                $body
            }
        }
    };
}

/// The end of a transaction.
trait CommitIf {
    /// Commits what was done, or undoes it.
    fn commit_if<T: Send>(self, done: Result<T, Error>) -> impl Future<Output = Result<T, Error>> + Send;
}

impl<D: sqlx::Database> CommitIf for sqlx::Transaction<'_, D> {
    async fn commit_if<T: Send>(self, done: Result<T, Error>) -> Result<T, Error> {
        match done {
            Ok(value) => {
                self.commit().await?;
                Ok(value)
            }
            Err(error) => {
                // The error that is reported is the first one.
                let _ = self.rollback().await;
                Err(error)
            }
        }
    }
}

impl Store {
    /// On a database whose schema is up to date.
    pub fn new(database: Database, limits: Limits) -> Self {
        Self { database, limits }
    }

    /// Stores a new item and its event. With a key that an item of the same maker has already, that item is the answer,
    /// and nothing is stored; says which it was.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create(&self, item: Item, key: Option<String>) -> Result<(Item, bool), Error> {
        let store = self.clone();
        to_its_end(async move {
            in_transaction!(store, queries, c => async {
                if let Some(key) = &key
                    && let Some(first) = queries::keyed(c, key, &item).await?
                {
                    return Ok((first, false));
                }
                queries::insert(c, &item).await?;
                if queries::shift(c, "items", 1).await? > store.limits.items_max {
                    return Err(Error::Full(store.limits.items_max));
                }
                queries::tag(c, &item).await?;
                queries::announce(c, &item, Action::Created, store.limits.outbox_max).await?;
                Ok((item, true))
            }.await)
        })
        .await
    }

    /// Changes an item as `change` says, and stores the event. What `change` leaves as it was is not stored.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn change<R: Send + 'static>(
        &self,
        id: Uuid,
        now: Timestamp,
        change: impl FnOnce(Item) -> Result<Item, R> + Send + 'static,
    ) -> Result<Changed<R>, Error> {
        let store = self.clone();
        to_its_end(async move {
            in_transaction!(store, queries, c => async {
                let Some(before) = queries::locked(c, id).await? else { return Ok(Changed::Missing) };
                let mut after = match change(before.clone()) {
                    Ok(after) => after,
                    Err(refusal) => return Ok(Changed::Refused(refusal)),
                };
                if after == before {
                    return Ok(Changed::Is(Box::new(before)));
                }
                (after.updated_at, after.version) = (Some(now), before.version + 1);
                queries::update(c, &after).await?;
                if after.tags != before.tags {
                    queries::untag(c, id).await?;
                    queries::tag(c, &after).await?;
                }
                queries::announce(c, &after, Action::Updated, store.limits.outbox_max).await?;
                Ok(Changed::Is(Box::new(after)))
            }.await)
        })
        .await
    }

    /// Deletes an item and stores the event; `false` where there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, id: Uuid, now: Timestamp) -> Result<bool, Error> {
        let store = self.clone();
        to_its_end(async move {
            in_transaction!(store, queries, c => async {
                let Some(mut item) = queries::locked(c, id).await? else { return Ok(false) };
                item.updated_at = Some(now);
                queries::untag(c, id).await?;
                queries::unkey(c, id).await?;
                queries::remove(c, id).await?;
                queries::shift(c, "items", -1).await?;
                queries::announce(c, &item, Action::Deleted, store.limits.outbox_max).await?;
                Ok(true)
            }.await)
        })
        .await
    }

    /// One item.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn item(&self, id: Uuid) -> Result<Option<Item>, Error> {
        reading!(self, queries, c => queries::item(c, id).await)
    }

    /// Items, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn items(&self, filter: &Filter, limit: i64) -> Result<Vec<Item>, Error> {
        reading!(self, queries, c => queries::items(c, filter, limit).await)
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn counts(&self) -> Result<Counts, Error> {
        reading!(self, queries, c => queries::counts(c).await)
    }

    /// The number of all items.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn total(&self) -> Result<i64, Error> {
        reading!(self, queries, c => queries::total(c).await)
    }

    /// Events that wait, in their order.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn waiting(&self, limit: i64) -> Result<Vec<Event>, Error> {
        reading!(self, queries, c => queries::waiting(c, limit).await)
    }

    /// How many wait, and since when the oldest does.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn backlog(&self) -> Result<i64, Error> {
        reading!(self, queries, c => queries::backlog(c).await)
    }

    /// Removes the events up to this number: the stream has them.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sent(&self, up_to: i64) -> Result<(), Error> {
        let store = self.clone();
        to_its_end(async move { in_transaction!(store, queries, c => queries::sent(c, up_to).await) }).await
    }
}

/// Runs a change as a task of its own: a transaction that is dropped in the middle of a statement would leave its
/// connection in an unknown state.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let crashed = |_| Err(Error::Database(sqlx::Error::WorkerCrashed));
    tokio::spawn(work).await.unwrap_or_else(crashed)
}

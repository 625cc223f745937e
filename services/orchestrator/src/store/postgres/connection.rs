//! Connections to Postgres: a bounded pool that connects when it is asked, never before.

use super::pooler;
use crate::store::{Error, codes, fault::Fault, migrate};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Postgres, Transaction};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What our connections call themselves.
pub(super) const APPLICATION: &str = "agentforge-orchestrator";
/// How long a connection is waited for, connecting included.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// How long migrations may take, the wait for another replica's included.
const MIGRATION_WAIT: Duration = Duration::from_secs(600);
/// A connection is not kept for longer than this: what fails over without cutting connections is left by then.
const LIFETIME_MAX: Duration = Duration::from_secs(600);
/// Nor idle for longer than this.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Sessions that are opened with the schema.
const OPEN_SESSIONS: u32 = 4;
/// A connection that was idle for longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Limits on one transaction. An answer is sent only after the commit, so the commit must not return before it is on
/// disk, regardless of the server's default; a stricter one stays. Notices (a table that exists already) are not
/// logged.
///
/// Statements stay prepared, with the plan that was the best when the session made it. On the empty tables of a new
/// installation that is a walk through all of a table, and every job would make the next one slower. Each statement has
/// an index for what it looks for: with these settings it is what the planner takes, regardless of what it knows of the tables.
const SESSION: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
    SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '30s'; SET client_min_messages = 'warning'; \
    SELECT set_config('synchronous_commit', \
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, \
        false)";

/// The same for the connection that migrates, which has bounds of its own.
const SESSION_QUIET: &str = "SET client_min_messages = 'warning'";

/// Reads a `postgres://` URL. The error does not repeat it: it may hold a password.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, Error> {
    let options: PgConnectOptions =
        url.parse().map_err(|e: sqlx::Error| Error::Url(format!("not a Postgres URL: {e}")))?;
    // Poolers refuse the parameter, and floats travel in binary. A log line for each statement is useless, and the
    // question whether to write it costs with each.
    Ok(options.application_name(APPLICATION).extra_float_digits(None).disable_statement_logging())
}

/// When sessions were last seen to lead to a server that is no longer the primary. Older ones are closed.
#[derive(Clone, Debug)]
pub(super) struct Left(Arc<(Instant, AtomicU64)>);

impl Default for Left {
    fn default() -> Self {
        Self(Arc::new((Instant::now(), AtomicU64::new(0))))
    }
}

impl Left {
    /// All sessions that are open now lead astray.
    pub(super) fn note(&self) {
        let ms = u64::try_from(self.0.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.1.fetch_max(ms.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether a session of this age was open then.
    fn holds_for(&self, age: Duration) -> bool {
        let opened = self.0.0.elapsed().saturating_sub(age);
        opened < Duration::from_millis(self.0.1.load(Ordering::Relaxed))
    }
}

/// A pool that connects on first use.
pub(super) fn pool(options: PgConnectOptions, size: NonZeroU32, left: Left) -> PgPool {
    PgPoolOptions::new()
        .max_connections(size.get())
        .acquire_timeout(CONNECTION_WAIT)
        .max_lifetime(LIFETIME_MAX)
        .idle_timeout(IDLE_MAX)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let is_left = left.holds_for(meta.age);
            Box::pin(async move {
                if is_left {
                    return Ok(false);
                }
                if meta.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION).await.map(drop) }))
        .connect_lazy_with(options)
}

/// Opens as many sessions as commits and the other loops use at once: a login that is being changed turns new ones
/// away, and leaves those that are open.
pub(super) async fn open_sessions(pool: &PgPool) -> Result<(), sqlx::Error> {
    let count = OPEN_SESSIONS.min(pool.options().get_max_connections());
    futures_util::future::try_join_all((0..count).map(|_| pool.acquire())).await.map(drop)
}

/// Brings the schema up to date, on a connection of its own: an error may leave the lock held, and it
/// goes with the connection.
pub(super) async fn prepare(options: &PgConnectOptions) -> Result<(), Error> {
    let late = || sqlx::Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let connect = tokio::time::timeout(CONNECTION_WAIT, PgConnection::connect_with(options)).await;
    let connected = connect.unwrap_or_else(|_| Err(late()));
    let mut connection = connected.map_err(|e| {
        if pooler::is_of_a_pooler(&e) {
            Error::Pooler(e.to_string())
        } else {
            Fault::Sql(e).trying_to("connect to the database")
        }
    })?;
    pooler::refuse_shared_sessions(options).await?;
    connection.execute(SESSION_QUIET).await.map_err(|e| Fault::Sql(e).trying_to("connect to the database"))?;
    let migrated = tokio::time::timeout(MIGRATION_WAIT, migrate::run(&mut connection, migrate::POSTGRES)).await;
    migrated.unwrap_or_else(|_| Err(Fault::Sql(late()).trying_to("migrate the schema")))?;
    // All is done: closing can only fail to say good-bye.
    let _ = connection.close().await;
    Ok(())
}

/// A connection for one transaction.
///
/// sqlx counts a transaction only once the answer to BEGIN has arrived: a caller that goes away before that would give
/// the pool a connection inside a transaction, and what the next one writes on it would be confirmed and then lost. So
/// a connection whose turn did not end is closed.
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    ended: bool,
}

impl Session {
    pub(super) async fn open(pool: &PgPool) -> Result<Self, Fault> {
        Ok(Self { connection: pool.acquire().await?, ended: false })
    }

    /// Begins a transaction whose statements walk along the same indexes with all values: their plans are made
    /// once, where the planner would make one for each call. A list is not one of them.
    pub(super) async fn begin_known(&mut self) -> Result<Transaction<'_, Postgres>, Fault> {
        Ok(self.connection.begin_with("BEGIN; SET LOCAL plan_cache_mode = force_generic_plan").await?)
    }

    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Postgres>, Fault> {
        Ok(self.connection.begin().await?)
    }

    /// Ends the turn with what came of it.
    pub(super) fn settle<T>(mut self, done: Result<T, Fault>) -> Result<T, Fault> {
        // The server's own errors leave it in step with us, and the transaction rolled back.
        self.ended = match &done {
            Ok(_) | Err(Fault::Row { .. }) => true,
            Err(Fault::Sql(e)) => matches!(e, sqlx::Error::Database(_)) && !codes::is_left_behind(e),
        };
        done
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_from_before_a_failover_are_left_and_later_ones_kept() {
        let left = Left::default();
        assert!(!left.holds_for(Duration::from_secs(60)), "nothing failed over yet");
        std::thread::sleep(Duration::from_millis(5));
        left.note();
        assert!(left.holds_for(Duration::from_millis(2)), "it was open then");
        std::thread::sleep(Duration::from_millis(20));
        assert!(!left.holds_for(Duration::from_millis(1)), "it was opened later");
    }
}

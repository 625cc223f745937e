//! The console's database: SQLite in a file, or Postgres in a schema of its own.
//!
//! Opens, migrates and classifies errors. What is asked of it belongs to the modules: each has its own tables and queries,
//! and numbers of migrations: accounts from 1, intake from 10, latency from 20.

mod error;
mod migrate;

pub use error::Error;

use agentforge_runtime::private;
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _,
    postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a connection, or the lock of another process, is waited for.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Concurrent readers of SQLite.
const READERS_MAX: u32 = 4;
/// A connection to Postgres is not kept for longer: what fails over without cutting connections is left by then.
const LIFETIME_MAX: Duration = Duration::from_secs(600);
/// Of each session of Postgres: our tables, and bounds.
const SESSION: &str = "SET search_path = console; SET statement_timeout = '15s'; SET lock_timeout = '5s'; \
    SET idle_in_transaction_session_timeout = '15s'; SET client_min_messages = 'warning'";

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Database {
    /// One file.
    Sqlite {
        /// One connection, which writes.
        writer: SqlitePool,
        /// Those that only read.
        readers: SqlitePool,
        /// The file.
        file: PathBuf,
    },
    /// A server.
    Postgres(PgPool),
}

/// Runs one statement on whichever database there is; both take `$1` and the same SQL.
macro_rules! on {
    ($database:expr, write, $pool:ident => $run:expr) => {
        match $database {
            $crate::store::Database::Sqlite { writer: $pool, .. } => $run,
            $crate::store::Database::Postgres($pool) => $run,
        }
    };
    ($database:expr, read, $pool:ident => $run:expr) => {
        match $database {
            $crate::store::Database::Sqlite { readers: $pool, .. } => $run,
            $crate::store::Database::Postgres($pool) => $run,
        }
    };
}
pub(crate) use on;

impl Database {
    /// Opens what `url` names. Connects to nothing yet: [`Self::prepare`] does.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn open(url: &str, data_dir: &Path, pool: NonZeroU32) -> Result<Self, Error> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options: PgConnectOptions =
                url.parse().map_err(|e: sqlx::Error| Error::Url(format!("not a Postgres URL: {e}")))?;
            let options =
                options.application_name("agentforge-console").extra_float_digits(None).disable_statement_logging();
            let pool = PgPoolOptions::new()
                .max_connections(pool.get())
                .acquire_timeout(WAIT_MAX)
                .max_lifetime(LIFETIME_MAX)
                .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION).await.map(drop) }))
                .connect_lazy_with(options);
            return Ok(Self::Postgres(pool));
        }
        let file = file(url, data_dir)?;
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .busy_timeout(WAIT_MAX)
            .foreign_keys(true)
            .disable_statement_logging();
        let writing = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A login that was answered is on disk.
            .synchronous(SqliteSynchronous::Full);
        let one = |max| SqlitePoolOptions::new().max_connections(max).acquire_timeout(WAIT_MAX);
        let (writer, readers) =
            (one(1).connect_lazy_with(writing), one(READERS_MAX).connect_lazy_with(options.read_only(true)));
        Ok(Self::Sqlite { writer, readers, file })
    }

    /// Brings the schema up to date, under a lock. Call it first, and again after an error that is retryable.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn prepare(&self) -> Result<(), Error> {
        let failed = Error::to("migrate the schema");
        match self {
            Self::Sqlite { writer, file, .. } => {
                if let Some(folder) = file.parent() {
                    private::create_dir_all(folder).map_err(|e| Error::Folder(folder.to_owned(), e))?;
                }
                // SQLite would make it with the rights of the umask.
                let made = private::options().create(true).append(true).open(file);
                made.map_err(|e| Error::Folder(file.clone(), e))?;
                private::tighten(file);
                let mut connection = writer.acquire().await.map_err(failed)?;
                migrate::run(&mut *connection, migrate::SQLITE).await
            }
            Self::Postgres(pool) => {
                // A connection of its own: an error may leave the lock held, and it goes with the connection.
                let mut connection = PgConnection::connect_with(&pool.connect_options())
                    .await
                    .map_err(Error::to("connect to the database"))?;
                connection
                    .execute("CREATE SCHEMA IF NOT EXISTS console")
                    .await
                    .map_err(Error::to("migrate the schema"))?;
                connection.execute(SESSION).await.map_err(Error::to("migrate the schema"))?;
                migrate::run(&mut connection, migrate::POSTGRES).await?;
                let _ = connection.close().await;
                Ok(())
            }
        }
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        on!(self, read, pool => sqlx::query("SELECT count(*) FROM users").execute(pool).await.map(drop))
            .map_err(Error::to("read"))
    }

    /// Where it is, for people; without credentials.
    pub fn place(&self) -> String {
        match self {
            Self::Sqlite { file, .. } => format!("SQLite {}", file.display()),
            Self::Postgres(pool) => {
                let options = pool.connect_options();
                format!(
                    "Postgres {}:{}/{}",
                    options.get_host(),
                    options.get_port(),
                    options.get_database().unwrap_or("?")
                )
            }
        }
    }

    /// Ends the connections.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers, .. } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// The text of an error never has the URL: it may have a password.
fn file(url: &str, data_dir: &Path) -> Result<PathBuf, Error> {
    let refused = |why: &str| Err(Error::Url(why.to_owned()));
    let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) else {
        return refused("expected sqlite://<file> or postgres://<user>@<host>/<database>");
    };
    if path.contains('?') || path.is_empty() || path.ends_with('/') || path.contains(":memory:") {
        return refused("a sqlite URL names a file and has no parameters, such as sqlite://console.db");
    }
    Ok(data_dir.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_file_or_a_server_and_are_never_shown() {
        assert_eq!(file("sqlite://a.db", Path::new("/data")).unwrap(), Path::new("/data/a.db"));
        assert_eq!(file("sqlite:///var/a.db", Path::new("/data")).unwrap(), Path::new("/var/a.db"));
        for url in ["mysql://u:secret@h/d", "sqlite://", "sqlite::memory:", "sqlite://a.db?mode=secret"] {
            let error = file(url, Path::new(".")).unwrap_err().to_string();
            assert!(error.starts_with("DATABASE_URL: ") && !error.contains("secret"), "{error}");
        }
    }
}

//! From DATABASE_URL to a store: SQLite in a file, or Postgres.

use super::{Error, Store, postgres, sqlite};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections to Postgres at most. SQLite has its own number.
    pub pool_size: NonZeroU32,
    /// The file that has the URL, if it comes from one: for Postgres it is read again when it changes.
    pub url_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { pool_size: const { NonZeroU32::new(10).expect("ten is not zero") }, url_file: None }
    }
}

/// Opens the store that `url` names. Connects to nothing yet: [`Store::prepare`] does. Needs a tokio
/// runtime.
///
/// `sqlite://name.db` is a file in `data_dir`, `sqlite:///path/name.db` one anywhere;
/// `postgres://…` is a server.
///
/// # Errors
/// [`Error::Url`] when `url` is neither, [`Error::InUse`] when another process has the SQLite file.
pub fn open(url: &str, data_dir: &Path, options: &Options) -> Result<Arc<dyn Store>, Error> {
    Ok(match Target::parse(url, data_dir)? {
        Target::Sqlite(file) => Arc::new(sqlite::SqliteStore::open(&file)?),
        Target::Postgres => {
            Arc::new(postgres::PostgresStore::open(url, options.pool_size, options.url_file.as_deref())?)
        }
    })
}

/// Writes a consistent copy of the database to `to`, which must not exist. The orchestrator may run.
///
/// # Errors
/// [`Error::Copy`] says what went wrong.
pub async fn backup(url: &str, data_dir: &Path, to: &Path) -> Result<(), Error> {
    match Target::parse(url, data_dir)? {
        Target::Sqlite(file) => sqlite::backup(&file, to).await,
        Target::Postgres => postgres::backup(url, to).await,
    }
}

/// Puts a copy made by [`backup`] back. No orchestrator may run. Without `force` an existing database
/// is left alone.
///
/// # Errors
/// [`Error::InUse`] when an orchestrator has the SQLite file, [`Error::Copy`] otherwise.
pub async fn restore(url: &str, data_dir: &Path, from: &Path, force: bool) -> Result<(), Error> {
    match Target::parse(url, data_dir)? {
        Target::Sqlite(file) => sqlite::restore(&file, from, force).await,
        Target::Postgres => postgres::restore(url, from, force).await,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Sqlite(PathBuf),
    Postgres,
}

impl Target {
    /// The text of an error never holds the URL: it may hold a password.
    fn parse(url: &str, data_dir: &Path) -> Result<Self, Error> {
        let refused = |why: &str| Err(Error::Url(why.to_owned()));
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres);
        }
        let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) else {
            return refused("expected sqlite://<file> or postgres://<user>@<host>/<database>");
        };
        if path.contains('?') {
            return refused("a sqlite URL takes no parameters; leave out what follows the question mark");
        }
        if path.is_empty() || path.ends_with('/') || path.contains(":memory:") {
            return refused("a sqlite URL names a file, such as sqlite://agentforge.db");
        }
        Ok(Self::Sqlite(data_dir.join(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_files_are_relative_to_the_data_folder() {
        let dir = Path::new("/data");
        let file = |url| Target::parse(url, dir).unwrap();
        assert_eq!(file("sqlite://a.db"), Target::Sqlite("/data/a.db".into()));
        assert_eq!(file("sqlite:sub/a.db"), Target::Sqlite("/data/sub/a.db".into()));
        assert_eq!(file("sqlite:///var/a.db"), Target::Sqlite("/var/a.db".into()));
        assert_eq!(file("postgresql://h/d"), Target::Postgres);
    }

    #[test]
    fn other_urls_are_refused_without_being_shown() {
        for url in ["mysql://u:secret@h/d", "sqlite://", "sqlite::memory:", "sqlite://a.db?mode=secret", "secret"] {
            let e = Target::parse(url, Path::new(".")).unwrap_err().to_string();
            assert!(e.starts_with("DATABASE_URL: ") && !e.contains("secret"), "{e}");
        }
    }
}

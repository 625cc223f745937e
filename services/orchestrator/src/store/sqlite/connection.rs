//! Connections to one SQLite file: one that writes, a few that read, one that keeps the log short.
//!
//! The file belongs to one process: an advisory lock next to it ensures that. The writer is reopened after any error,
//! because SQLite may have rolled back without sqlx's knowledge.

use super::super::{Error, codes, fault::Fault};
use super::lite::{Known, Lite};
use super::recent::Recent;
use super::settings::{BUSY_WAIT, LOG_BYTES_MAX, LOG_PAGES_OF_LAST_RESORT, SMALL_CACHE_KIB};
use super::statements::MISSING_LABELS;
use crate::store::migrate;
use crate::store::writes::Writes;
use agentforge_audit::{Hash, Head};
use agentforge_runtime::private;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{self, AtomicBool};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

/// Connections that read at once. More would compete for two cores with the writer.
const READERS: u32 = 4;
/// How long a reader is waited for.
const READER_WAIT: Duration = Duration::from_secs(5);
/// How long the keeper waits, the writer in its hands, for those who still read in the log. A long
/// reader, such as a backup, lets the log grow until it is done.
const KEEPER_BUSY_WAIT: Duration = Duration::from_millis(20);
/// From this length on, pages, the keeper holds the writer for the last bit, so that the log restarts.
const LOG_PAGES_RESTART: i64 = 4_096;
/// How often the log is copied back into the file.
const KEEPER_PERIOD: Duration = Duration::from_secs(1);

/// The one chain of the audit log.
const AUDIT_CHAIN: i64 = 0;

/// The connections that write, one at a time, and what they know without reading. Row numbers of a transaction that was
/// rolled back are not used again.
pub(super) struct Writer {
    /// For what is asked seldom.
    pub connection: SqliteConnection,
    /// For commits.
    lite: Arc<std::sync::Mutex<Lite>>,
    pub known: Known,
    /// Somebody has it, or went away while having it.
    in_use: bool,
}

/// All connections to one file.
pub(super) struct Connections {
    pub file: PathBuf,
    options: SqliteConnectOptions,
    /// The file and its log as they were opened.
    opened: std::sync::Mutex<Identity>,
    /// They are not at their paths any more.
    gone: AtomicBool,
    pub writes: Writes,
    writer: Mutex<Option<Writer>>,
    keeper: Mutex<Option<SqliteConnection>>,
    pub readers: SqlitePool,
    lock: std::sync::Mutex<Option<File>>,
}

impl Connections {
    /// Takes the file for this process. Connects to nothing yet.
    pub(super) fn open(file: &Path) -> Result<Self, Error> {
        let lock = lock(file)?;
        let options = options(file);
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(READER_WAIT)
            .test_before_acquire(false)
            .connect_lazy_with(options.clone().read_only(true).pragma("cache_size", "-4096"));
        Ok(Self {
            file: file.to_owned(),
            options: writer_options(options),
            opened: std::sync::Mutex::default(),
            gone: AtomicBool::new(false),
            writes: Writes::default(),
            writer: Mutex::new(None),
            keeper: Mutex::new(None),
            readers,
            lock: Some(lock).into(),
        })
    }

    pub(super) async fn prepare(&self) -> Result<(), Error> {
        const WHAT: &str = "open the database";
        let mut slot = self.writer.lock().await;
        if let Some(w) = slot.take() {
            // Closing waits for what was sent; it has nothing of its own that could be lost.
            let _ = w.connection.close().await;
        }
        let failed = |e: sqlx::Error| {
            if codes::is_damage(&e) { Error::Damaged(self.file.clone(), e) } else { Fault::Sql(e).trying_to(WHAT) }
        };
        private_database(&self.file);
        // Only here: later, a file that is not there was taken away.
        let mut connection = self.options.clone().create_if_missing(true).connect().await.map_err(failed)?;
        migrate::run(&mut connection, migrate::SQLITE).await.map_err(|e| match e {
            Error::Refused { source, .. } if codes::is_damage(&source) => Error::Damaged(self.file.clone(), source),
            other => other,
        })?;
        sqlx::query(MISSING_LABELS).execute(&mut connection).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        *slot = Some(self.open_writer(WHAT).await?);
        self.gone.store(false, atomic::Ordering::Relaxed);
        Ok(())
    }

    async fn open_writer(&self, attempted: &'static str) -> Result<Writer, Error> {
        let writer = Writer::open(&self.options, &self.file).await.map_err(|f| f.trying_to(attempted))?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Identity::of(&self.file);
        Ok(writer)
    }

    /// Checks whether the file and its log are still those that were opened. SQLite keeps writing into a file that was
    /// removed, and it would never be read.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let held = self.writer.lock().await;
        let is_open = held.is_some();
        let opened = *self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        drop(held);
        let file = self.file.clone();
        let Ok(found) = tokio::task::spawn_blocking(move || Identity::of(&file)).await else { return Ok(()) };
        // Once gone it stays so until a restart, even when it is put back: connections that were opened meanwhile read
        // another file. (The log may be recreated while there are no writes.)
        let gone = self.gone.load(atomic::Ordering::Relaxed)
            || found.file != opened.file
            || (is_open && found.log != opened.log);
        if self.gone.swap(gone, atomic::Ordering::Relaxed) != gone {
            let error = Error::Gone(self.file.clone());
            tracing::error!(file = %self.file.display(), %error, "the database is gone");
        }
        if gone { Err(Error::Gone(self.file.clone())) } else { Ok(()) }
    }

    /// The writer, for one transaction.
    pub(super) async fn writer(&self) -> Result<Writing<'_>, Error> {
        let mut slot = self.writer.lock().await;
        if self.gone.load(atomic::Ordering::Relaxed) {
            return Err(Error::Gone(self.file.clone()));
        }
        if slot.is_none() {
            // Opening would make a new file where ours was removed.
            let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).file;
            if opened.is_some() && opened != Identity::of(&self.file).file {
                return Err(Error::Gone(self.file.clone()));
            }
            *slot = Some(self.open_writer("open the database for writing").await?);
        }
        // It stays in its place while we wait: what an earlier caller has sent is done in turn, and must be
        // done before another connection reads the last row numbers.
        let writer = slot.as_mut().expect("opened above");
        if writer.in_use {
            // The previous caller went away in the middle of its turn. What it had begun and not committed is undone;
            // that nothing was begun is not an error.
            let _ = sqlx::query("ROLLBACK").execute(&mut writer.connection).await;
            // What had been sent may be done: everything continues from what is stored.
            let known = writer.look().await;
            writer.known = known.map_err(|f| f.trying_to("continue after a caller that went away"))?;
        }
        writer.in_use = true;
        Ok(Writing { slot, writes: &self.writes })
    }

    /// Copies the log back into the file, again and again, until `stop`.
    pub(super) async fn keep_log_short(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(KEEPER_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.copy_back().await {
                // The writer copies back by itself when this continues.
                tracing::warn!(%error, "the write-ahead log could not be copied back");
                *self.keeper.lock().await = None;
            }
        }
    }

    /// Copies the log back into the file while commits continue.
    pub(super) async fn copy_back(&self) -> Result<(), sqlx::Error> {
        if self.writer.lock().await.is_none() || self.gone.load(atomic::Ordering::Relaxed) {
            return Ok(());
        }
        let mut keeper = self.keeper.lock().await;
        let opened = *self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.is_none() && Identity::of(&self.file).file != opened.file {
            // It would copy our log into a file that took the place of ours.
            return Ok(());
        }
        let connection = match &mut *keeper {
            Some(c) => c,
            none => none.insert(self.options.clone().busy_timeout(KEEPER_BUSY_WAIT).connect().await?),
        };
        let pages = copy(connection, "PRAGMA wal_checkpoint(PASSIVE)").await?;
        if pages > LOG_PAGES_RESTART {
            // What was committed meanwhile is not copied yet: while commits continue there is always a little left, and
            // the log would grow forever. Without the writer the rest takes no time, and its next commit restarts the
            // log.
            let _held = self.writer.lock().await;
            copy(connection, "PRAGMA wal_checkpoint(RESTART)").await?;
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        if let Some(c) = self.keeper.lock().await.take() {
            let _ = c.close().await;
        }
        if let Some(w) = self.writer.lock().await.take() {
            // The last connection to close empties the log; a failure leaves that to the next start.
            let _ = w.connection.close().await;
        }
        self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}

/// Copies the log back; says how many pages it held.
async fn copy(connection: &mut SqliteConnection, how: &'static str) -> Result<i64, sqlx::Error> {
    let (_busy, pages, _copied): (i64, i64, i64) = sqlx::query_as(how).fetch_one(connection).await?;
    Ok(pages)
}

impl Writer {
    async fn open(options: &SqliteConnectOptions, file: &Path) -> Result<Self, Fault> {
        let mut connection = options.clone().connect().await?;
        let known = read_known(&mut connection).await?;
        // After the connection that sets the mode of the log.
        let file = file.to_owned();
        let lite = on_thread(move || Lite::open(&file)).await?;
        Ok(Self { connection, lite: Arc::new(std::sync::Mutex::new(lite)), known, in_use: false })
    }

    /// What is stored, once nothing of an earlier caller is under way.
    async fn look(&mut self) -> Result<Known, Fault> {
        let lite = Arc::clone(&self.lite);
        on_thread(move || {
            drop(lite.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(())
        })
        .await?;
        read_known(&mut self.connection).await
    }

    /// Runs `work` on a thread where it may wait for the disk. A caller that goes away meanwhile leaves it to its end; the
    /// next one waits for that, and reads again what is known.
    pub(super) async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Lite, &mut Known) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let lite = Arc::clone(&self.lite);
        let mut known = std::mem::take(&mut self.known);
        let (known, done) = on_thread(move || {
            let lite = lite.lock().unwrap_or_else(PoisonError::into_inner);
            let done = work(&lite, &mut known);
            Ok((known, done))
        })
        .await?;
        self.known = known;
        done
    }
}

/// Runs `work` on a thread of the runtime's blocking pool; a panic in it is an error of the database.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Fault::Sql(sqlx::Error::WorkerCrashed)))
}

async fn read_known(c: &mut SqliteConnection) -> Result<Known, Fault> {
    let last = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0), \
                       coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0)";
    let (job, outbox): (i64, i64) = sqlx::query_as(last).fetch_one(&mut *c).await?;
    let audit = head_of_audit(c).await?;
    Ok(Known { next_job: job + 1, next_outbox: outbox + 1, recent: Recent::default(), audit })
}

/// The last entry of the audit log, as it is stored.
async fn head_of_audit(c: &mut SqliteConnection) -> Result<Head, Fault> {
    let stored = "SELECT place, hash FROM audit_chains WHERE chain = ?";
    let (place, hash): (i64, Vec<u8>) = sqlx::query_as(stored).bind(AUDIT_CHAIN).fetch_one(c).await?;
    let hash = Hash::try_from(hash.as_slice()).map_err(|e| Fault::row("audit chain", e))?;
    Ok(Head { chain: AUDIT_CHAIN, place, hash })
}

/// Which files lie at the database's paths, by device and inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Identity {
    file: Option<(u64, u64)>,
    log: Option<(u64, u64)>,
}

impl Identity {
    fn of(file: &Path) -> Self {
        let at = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        Self { file: at(file), log: at(Path::new(&log)) }
    }
}

/// The writer while one caller has it.
pub(super) struct Writing<'a> {
    slot: MutexGuard<'a, Option<Writer>>,
    writes: &'a Writes,
}

impl Writing<'_> {
    /// Ends the caller's turn; after an error the connection is not used again. A turn that is dropped
    /// instead is undone at the start of the next.
    pub(super) fn settle<T>(mut self, attempted: &'static str, done: Result<T, Fault>) -> Result<T, Error> {
        self.in_use = false;
        let done = done.map_err(|fault| {
            *self.slot = None;
            fault.trying_to(attempted)
        });
        // What is wrong with a statement says nothing of the next.
        if done.as_ref().err().is_none_or(Error::is_retryable) {
            self.writes.note(done.is_ok());
        }
        done
    }
}

impl Deref for Writing<'_> {
    type Target = Writer;
    fn deref(&self) -> &Writer {
        self.slot.as_ref().expect("made with a writer inside, which only settle() takes out")
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Writer {
        self.slot.as_mut().expect("made with a writer inside, which only settle() takes out")
    }
}

/// Makes an absent database an empty file that only we can read, and takes the rights of others from one that an earlier
/// version made. SQLite gives its log and index the mode of the database, and reports what keeps the file from being
/// used. One that exists is not opened: closing it would end SQLite's own locks on it.
fn private_database(file: &Path) {
    let _ = private::options().create_new(true).write(true).open(file);
    for ending in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(ending);
        private::tighten(Path::new(&path));
    }
}

/// Takes `<file>.lock`, so that no two processes work on one file.
pub(super) fn lock(file: &Path) -> Result<File, Error> {
    let path = lock_path(file);
    let problem = |e: std::io::Error| Error::Url(format!("{}: {e}", path.display()));
    if let Some(folder) = file.parent() {
        private::create_dir_all(folder).map_err(|e| Error::Url(format!("{}: {e}", folder.display())))?;
    }
    let lock = private::options().create(true).write(true).truncate(false).open(&path).map_err(problem)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse(file.to_owned())),
        Err(std::fs::TryLockError::Error(e)) => Err(problem(e)),
    }
}

fn lock_path(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// What all connections have in common.
pub(super) fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_WAIT)
        .foreign_keys(false)
        .pragma("temp_store", "MEMORY")
        .row_buffer_size(256)
        .disable_statement_logging()
}

fn writer_options(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        // The answer to a submission is sent after the commit: the commit must be on disk.
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", format!("-{SMALL_CACHE_KIB}"))
        .pragma("wal_autocheckpoint", LOG_PAGES_OF_LAST_RESORT.to_string())
        .pragma("journal_size_limit", LOG_BYTES_MAX.to_string())
        .statement_cache_capacity(256)
}

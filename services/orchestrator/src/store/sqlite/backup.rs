//! Copies of a SQLite file: taken while it is written to, restored while it is not in use.

use super::connection;
use crate::store::Error;
use agentforge_runtime::private;
use sqlx::{ConnectOptions as _, Connection as _};
use std::fs::File;
use std::path::{Path, PathBuf};

const BACKUP: &str = "back up the database";
const RESTORE: &str = "restore the database";

/// Writes a consistent copy of `file` to `to`, which must not exist. Commits continue meanwhile; everything committed
/// before the start is in the copy.
pub(in crate::store) async fn backup(file: &Path, to: &Path) -> Result<(), Error> {
    if !file.exists() {
        return Err(failed(BACKUP, format_args!("there is no database at {}", file.display())));
    }
    if to.exists() {
        return Err(failed(BACKUP, format_args!("{} exists already; name a new file", to.display())));
    }
    let part = beside(to, ".part");
    let _ = std::fs::remove_file(&part);
    let name = part.to_str().ok_or_else(|| failed(BACKUP, "the path is not UTF-8"))?.to_owned();
    let mut c = connection::options(file).read_only(true).connect().await.map_err(|e| failed(BACKUP, e))?;
    // An empty file is taken as the target, and keeps its mode.
    private::options().create_new(true).write(true).open(&part).map_err(|e| failed(BACKUP, e))?;
    sqlx::query("VACUUM INTO ?").bind(name).execute(&mut c).await.map_err(|e| failed(BACKUP, e))?;
    // Nothing was written through it: closing can only fail to tidy up.
    let _ = c.close().await;
    settle(&part, to).map_err(|e| failed(BACKUP, e))
}

/// Replaces `file` by the copy `from`. With `force`, an existing database is replaced; it is kept as
/// `<file>.before-restore`.
pub(in crate::store) async fn restore(file: &Path, from: &Path, force: bool) -> Result<(), Error> {
    let _lock = connection::lock(file)?;
    check(from).await?;
    if file.exists() && !force {
        let problem = format_args!("{} exists already; use force to replace it", file.display());
        return Err(failed(RESTORE, problem));
    }
    let part = beside(file, ".restoring");
    copy(from, &part).map_err(|e| failed(RESTORE, e))?;
    check(&part).await?;
    put_aside(file).map_err(|e| failed(RESTORE, e))?;
    settle(&part, file).map_err(|e| failed(RESTORE, e))
}

/// Copies into a new file that only we can read.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let _ = std::fs::remove_file(to);
    let mut target = private::options().create_new(true).write(true).open(to)?;
    std::io::copy(&mut File::open(from)?, &mut target).map(drop)
}

/// Whether `copy` is a whole database of ours.
async fn check(copy: &Path) -> Result<(), Error> {
    let refused =
        |e: sqlx::Error| failed(RESTORE, format_args!("{} is not a backup of AgentForge: {e}", copy.display()));
    let options = connection::options(copy).read_only(true).immutable(true);
    let mut c = options.connect().await.map_err(refused)?;
    let verdict: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut c).await.map_err(refused)?;
    let _: i64 =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut c).await.map_err(refused)?;
    let _ = c.close().await;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(failed(RESTORE, format_args!("{} is damaged: {verdict}", copy.display())))
    }
}

/// Moves the database that is there out of the way, its log first: a log must never meet another file.
fn put_aside(file: &Path) -> std::io::Result<()> {
    for ending in ["-shm", "-wal", ""] {
        let old = beside(file, ending);
        if old.exists() {
            private::tighten(&old);
            std::fs::rename(&old, beside(file, &format!(".before-restore{ending}")))?;
        }
    }
    Ok(())
}

/// Makes `part` durable and gives it its name in one step.
fn settle(part: &Path, to: &Path) -> std::io::Result<()> {
    File::open(part)?.sync_all()?;
    std::fs::rename(part, to)?;
    match to.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn failed(attempted: &'static str, problem: impl std::fmt::Display) -> Error {
    Error::Copy { attempted, problem: problem.to_string() }
}

//! Copies of a Postgres database through its own programs, `pg_dump` and `pg_restore`.
//!
//! The password goes to them by environment, never as an argument that `ps` would show.

use super::connection;
use crate::store::Error;
use agentforge_runtime::private;
use sqlx::{Connection as _, postgres::PgConnection};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;
use url::Url;

const BACKUP: &str = "back up the database";
const RESTORE: &str = "restore the database";
/// How much of a program's complaint is repeated, bytes.
const COMPLAINT_BYTES_MAX: usize = 2_000;

/// Writes a consistent copy to `to`, which must not exist. Commits continue meanwhile.
pub(in crate::store) async fn backup(url: &str, to: &Path) -> Result<(), Error> {
    if to.exists() {
        return Err(failed(BACKUP, format_args!("{} exists already; name a new file", to.display())));
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut dump = program(BACKUP, "pg_dump", url)?;
    let _ = std::fs::remove_file(&part);
    // pg_dump writes into it, and it keeps its mode.
    private::options().create_new(true).write(true).open(&part).map_err(|e| failed(BACKUP, e))?;
    dump.args(["--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=30s"]).arg("--file").arg(&part);
    run(BACKUP, dump).await?;
    let settle = || {
        std::fs::File::open(&part)?.sync_all()?;
        std::fs::rename(&part, to)
    };
    settle().map_err(|e| failed(BACKUP, e))
}

/// Puts the copy `from` into the database, in one transaction. With `force`, our tables that are
/// there already are replaced.
pub(in crate::store) async fn restore(url: &str, from: &Path, force: bool) -> Result<(), Error> {
    if !from.exists() {
        return Err(failed(RESTORE, format_args!("there is no file {}", from.display())));
    }
    refuse_while_used(url).await?;
    let mut restore = program(RESTORE, "pg_restore", url)?;
    restore.args(["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]);
    if force {
        restore.args(["--clean", "--if-exists"]);
    }
    restore.arg("--dbname").arg(name(RESTORE, url)?).arg(from);
    run(RESTORE, restore).await.map_err(|e| match e {
        Error::Copy { attempted, problem } if problem.contains("already exists") => Error::Copy {
            attempted,
            problem: format!("the database holds tables already; use force to replace them\n{problem}"),
        },
        other => other,
    })
}

/// A restore under a running orchestrator would take jobs from under its hands.
async fn refuse_while_used(url: &str) -> Result<(), Error> {
    let options = connection::options(url)?.application_name("agentforge-restore");
    let count = async {
        let mut c = PgConnection::connect_with(&options).await?;
        sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
        )
        .bind(connection::APPLICATION)
        .fetch_one(&mut c)
        .await
    };
    match count.await {
        Ok(0) => Ok(()),
        Ok(n) => Err(failed(RESTORE, format_args!("orchestrators hold {n} connections to it; stop them first"))),
        Err(e) => Err(failed(RESTORE, e)),
    }
}

async fn run(attempted: &'static str, mut command: Command) -> Result<(), Error> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|e| failed(attempted, e))?;
    if output.status.success() {
        return Ok(());
    }
    let end = output.stderr.len().min(COMPLAINT_BYTES_MAX);
    Err(failed(attempted, String::from_utf8_lossy(&output.stderr[..end]).trim()))
}

/// `name` with the server's address in its environment.
fn program(attempted: &'static str, name: &str, url: &str) -> Result<Command, Error> {
    let path = find(name).ok_or_else(|| {
        failed(
            attempted,
            format_args!("{name} is neither on PATH nor in /usr/lib/postgresql; install postgresql-client"),
        )
    })?;
    let mut command = Command::new(path);
    for (key, value) in environment(attempted, url)? {
        command.env(key, value);
    }
    Ok(command)
}

fn environment(attempted: &'static str, url: &str) -> Result<Vec<(&'static str, String)>, Error> {
    let parsed = parse(attempted, url)?;
    let mut found = vec![("PGDATABASE", name(attempted, url)?), ("PGCONNECT_TIMEOUT", "10".into())];
    let decoded = |s: &str| percent_decode(s);
    if let Some(host) = parsed.host_str().filter(|h| !h.is_empty()) {
        found.push(("PGHOST", decoded(host.trim_start_matches('[').trim_end_matches(']'))));
    }
    if let Some(port) = parsed.port() {
        found.push(("PGPORT", port.to_string()));
    }
    if !parsed.username().is_empty() {
        found.push(("PGUSER", decoded(parsed.username())));
    }
    if let Some(password) = parsed.password() {
        found.push(("PGPASSWORD", decoded(password)));
    }
    for (key, value) in parsed.query_pairs() {
        let variable = match &*key {
            "sslmode" | "ssl-mode" => "PGSSLMODE",
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => "PGSSLROOTCERT",
            "sslcert" | "ssl-cert" => "PGSSLCERT",
            "sslkey" | "ssl-key" => "PGSSLKEY",
            "host" => "PGHOST",
            "hostaddr" => "PGHOSTADDR",
            "port" => "PGPORT",
            "dbname" => "PGDATABASE",
            "user" => "PGUSER",
            "password" => "PGPASSWORD",
            "options" => "PGOPTIONS",
            _ => continue,
        };
        found.push((variable, value.into_owned()));
    }
    Ok(found)
}

fn name(attempted: &'static str, url: &str) -> Result<String, Error> {
    let parsed = parse(attempted, url)?;
    let by_query = parsed.query_pairs().find(|(k, _)| k == "dbname").map(|(_, v)| v.into_owned());
    let by_path = Some(percent_decode(parsed.path().trim_start_matches('/'))).filter(|n| !n.is_empty());
    by_query.or(by_path).ok_or_else(|| failed(attempted, "DATABASE_URL names no database"))
}

fn parse(attempted: &'static str, url: &str) -> Result<Url, Error> {
    Url::parse(url).map_err(|e| failed(attempted, format_args!("DATABASE_URL: {e}")))
}

/// What `%41` and the like stand for.
fn percent_decode(text: &str) -> String {
    let hex = |b: &[u8]| std::str::from_utf8(b).ok().and_then(|h| u8::from_str_radix(h, 16).ok());
    let (bytes, mut out, mut i) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while i < bytes.len() {
        let escaped = (bytes[i] == b'%').then(|| bytes.get(i + 1..i + 3).and_then(hex)).flatten();
        out.push(escaped.unwrap_or(bytes[i]));
        i += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// On PATH, or else the newest in /usr/lib/postgresql.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|p| p.is_file());
    on_path.or_else(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
        let number = |p: &PathBuf| p.file_name()?.to_str()?.parse::<u32>().ok();
        let newest = versions.map(|e| e.path()).filter(|p| p.join("bin").join(name).is_file()).max_by_key(number)?;
        Some(newest.join("bin").join(name))
    })
}

fn failed(attempted: &'static str, problem: impl std::fmt::Display) -> Error {
    Error::Copy { attempted, problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_goes_by_environment_decoded() {
        let url = "postgres://me:p%40ss@db.example:5433/jobs?sslmode=require";
        let found = environment(BACKUP, url).unwrap();
        let get = |k| found.iter().find(|(key, _)| *key == k).map(|(_, v)| v.as_str());
        assert_eq!(get("PGPASSWORD"), Some("p@ss"));
        assert_eq!((get("PGHOST"), get("PGPORT"), get("PGUSER")), (Some("db.example"), Some("5433"), Some("me")));
        assert_eq!((get("PGDATABASE"), get("PGSSLMODE")), (Some("jobs"), Some("require")));
        assert!(environment(BACKUP, "postgres://h").is_err());
    }
}

//! `agentforge backup` and `restore`: the orchestrator's database as one file.

use agentforge_orchestrator::store;
use agentforge_terminal::{Failure, GREEN, Output, Result, bytes, styled};
use serde::Serialize;
use std::{
    error::Error,
    path::{Path, PathBuf},
};

/// Which database.
#[derive(Clone, Debug, clap::Args)]
pub struct Database {
    /// sqlite://FILE (under the data directory) or postgres://…; prefer the environment
    #[arg(
        long = "store",
        env = "DATABASE_URL",
        value_name = "URL",
        default_value = "sqlite://agentforge.db",
        hide_env_values = true
    )]
    url: String,
    /// The orchestrator's data directory
    #[arg(long, env = "DATA_DIR", value_name = "DIR", default_value = "./.agentforge")]
    data_dir: PathBuf,
}

/// Where to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge backup --to before-upgrade.db
  agentforge backup --to jobs.dump --store postgres://forge@db.example/forge
  agentforge backup --to /backups/forge.db --data-dir /var/lib/agentforge

The orchestrator may run. The copy is consistent: what was acknowledged before it began is in it.")]
pub struct BackupArgs {
    /// The new file
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    #[command(flatten)]
    database: Database,
}

/// Where from.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge restore --from before-upgrade.db
  agentforge restore --from before-upgrade.db --force --data-dir /var/lib/agentforge

Stop every orchestrator of this database first.")]
pub struct RestoreArgs {
    /// A file that `agentforge backup` wrote
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Replace an existing database
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    database: Database,
}

#[derive(Serialize)]
struct Done<'a> {
    file: &'a Path,
    bytes: u64,
}

/// Saves the database.
///
/// # Errors
/// What failed.
pub async fn backup(args: BackupArgs, out: Output) -> Result {
    let Database { url, data_dir } = &args.database;
    store::backup(url, data_dir, &args.to).await.map_err(|e| explain("the backup", &e))?;
    done("saved to", &args.to, out)
}

/// Brings a saved database back.
///
/// # Errors
/// What failed.
pub async fn restore(args: RestoreArgs, out: Output) -> Result {
    let Database { url, data_dir } = &args.database;
    store::restore(url, data_dir, &args.from, args.force).await.map_err(|e| explain("the restore", &e))?;
    done("restored from", &args.from, out)
}

fn done(word: &str, file: &Path, out: Output) -> Result {
    let size = std::fs::metadata(file).map(|m| m.len()).unwrap_or_default();
    if out.json {
        out.document(&Done { file, bytes: size })
    } else {
        out.line(format!("{} {} ({})", styled(GREEN, word), file.display(), bytes(size)))
    }
}

fn explain(what: &str, e: &store::Error) -> Failure {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    let hint = match e {
        store::Error::InUse { .. } => "stop the orchestrator that uses it first",
        _ => "--store and --data-dir (or DATABASE_URL and DATA_DIR) name the database; --help has examples",
    };
    Failure::new(format!("{what} failed: {text}")).hint(hint)
}

//! Migrations: embedded, applied in order, checked by checksum.
//!
//! A migration that this version does not know is left alone: a binary of the version before runs on
//! the schema of the next one, so migrations only ever add what has a default.

use super::{Error, fault::Fault};
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

/// One step of a schema: its number, its name, its SQL.
pub(super) type Step = (i64, &'static str, &'static str);

/// Every step in order, for one database. SQL that both take is in `migrations` here; otherwise each has a file of its
/// own.
macro_rules! steps {
    ($database:literal) => {
        &[
            (1, "init", include_str!(concat!($database, "/migrations/0001_init.sql"))),
            (2, "slo", include_str!(concat!($database, "/migrations/0002_slo.sql"))),
            (3, "request_id", include_str!("migrations/0003_request_id.sql")),
            (4, "relay", include_str!(concat!($database, "/migrations/0004_relay.sql"))),
            (5, "retries", include_str!(concat!($database, "/migrations/0005_retries.sql"))),
            (6, "turns", include_str!(concat!($database, "/migrations/0006_turns.sql"))),
            (7, "installation", include_str!(concat!($database, "/migrations/0007_installation.sql"))),
            (8, "clock_skew", include_str!(concat!($database, "/migrations/0008_clock_skew.sql"))),
            (9, "rewinds", include_str!(concat!($database, "/migrations/0009_rewinds.sql"))),
            (10, "operations", include_str!(concat!($database, "/migrations/0010_operations.sql"))),
            (11, "audit", include_str!(concat!($database, "/migrations/0011_audit.sql"))),
            (12, "unconfined", include_str!("migrations/0012_unconfined.sql")),
            (13, "outbox_groups", include_str!(concat!($database, "/migrations/0013_outbox_groups.sql"))),
            (14, "listing", include_str!(concat!($database, "/migrations/0014_listing.sql"))),
            (15, "queue_pauses", include_str!(concat!($database, "/migrations/0015_queue_pauses.sql"))),
        ]
    };
}

/// The steps of SQLite's schema.
pub(super) const SQLITE: &[Step] = steps!("sqlite");
/// The steps of Postgres' schema.
pub(super) const POSTGRES: &[Step] = steps!("postgres");

/// Applies the steps that `connection` does not have yet, under the database's own lock.
///
/// # Errors
/// [`Error::Migration`] when an applied step differs from ours; drop `connection` on any error, it may
/// hold the lock.
pub(super) async fn run<C: Migrate>(connection: &mut C, steps: &[Step]) -> Result<(), Error> {
    let steps = steps.iter().map(|(number, name, sql)| {
        Migration::new(*number, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(steps.collect());
    migrator.set_ignore_missing(true);
    migrator.run_direct(None, connection, false).await.map_err(error)
}

fn error(e: MigrateError) -> Error {
    match e {
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => {
            Fault::Sql(e).trying_to("migrate the schema")
        }
        MigrateError::VersionMismatch(n) => Error::Migration(format!(
            "step {n} was applied in another form than this version has it; \
             run the version that made the database, or restore a backup"
        )),
        MigrateError::Dirty(n) => {
            Error::Migration(format!("step {n} was applied in part; restore a backup made before the upgrade"))
        }
        other => Error::Migration(other.to_string()),
    }
}

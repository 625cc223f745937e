//! Migrations: embedded, applied in order, checked by checksum.
//!
//! A migration that this version does not know is left alone: a binary of the version before runs on the schema of the
//! next one, so migrations only ever add what has a default. Numbers belong to modules: accounts from 1, intake from 10,
//! latency from 20.

use super::Error;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

/// One step of a schema: its number, its name, its SQL.
pub(super) type Step = (i64, &'static str, &'static str);

/// The steps of SQLite's schema.
pub(super) const SQLITE: &[Step] = &[
    (1, "accounts", include_str!("migrations/0001_accounts.sql")),
    (10, "intake", include_str!("migrations/0010_intake_sqlite.sql")),
];
/// The steps of Postgres' schema.
pub(super) const POSTGRES: &[Step] = &[
    (1, "accounts", include_str!("migrations/0001_accounts.sql")),
    (10, "intake", include_str!("migrations/0010_intake_postgres.sql")),
];

/// Applies the steps that `connection` does not have yet, under the database's own lock.
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
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => Error::to("migrate the schema")(e),
        MigrateError::VersionMismatch(n) => Error::Migration(format!(
            "step {n} was applied in another form than this version has it; run the version that made the database"
        )),
        MigrateError::Dirty(n) => Error::Migration(format!("step {n} was applied in part; restore a backup")),
        other => Error::Migration(other.to_string()),
    }
}

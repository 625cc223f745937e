//! Operations on SQLite; the statements are in `store::operations`.

crate::store::operations::operations!(sqlx::Sqlite, sqlx::sqlite::SqlitePool, sqlx::sqlite::SqliteConnection);

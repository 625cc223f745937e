//! SQLite's rows as values of `model`; the mapping itself is in `store::rows`.

crate::store::rows::readers!(sqlx::Sqlite, sqlx::sqlite::SqliteRow);

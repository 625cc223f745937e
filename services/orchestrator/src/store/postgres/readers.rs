//! Postgres' rows as values of `model`; the mapping itself is in `store::rows`.

crate::store::rows::readers!(sqlx::Postgres, sqlx::postgres::PgRow);

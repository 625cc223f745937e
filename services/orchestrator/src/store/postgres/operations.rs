//! Operations on Postgres; the statements are in `store::operations`.

crate::store::operations::operations!(sqlx::Postgres, sqlx::postgres::PgPool, sqlx::postgres::PgConnection);

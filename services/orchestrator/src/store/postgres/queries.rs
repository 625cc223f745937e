//! The queries of [`crate::store::queries`], on Postgres' driver, and those that only differ in how they take a list.

use super::text::bytes;
use crate::model::State;
use crate::store::fault::Fault;
use crate::store::{queries, rows};
use agentforge_message_id::JobId;
use agentforge_proto::time::Micros;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{query, query_scalar};

/// Not: what looks for work is planned each time. A plan that was made while the table was nearly empty reads it
/// whole, and a session would keep it; these statements run a few times a second at most.
pub(super) const PLAN_KEPT: bool = false;

pub(super) mod agents {
    super::queries::agents!(sqlx::Postgres);
}
pub(super) mod audit {
    super::queries::audit!(sqlx::Postgres);
}
pub(super) mod installation {
    super::queries::installation!(sqlx::Postgres, sqlx::PgConnection);
}
pub(super) mod jobs {
    super::queries::jobs!(
        sqlx::Postgres,
        sqlx::PgPool,
        plan_kept: crate::store::postgres::queries::PLAN_KEPT
    );
}
pub(super) mod listing {
    super::queries::listing!(
        sqlx::Postgres,
        sqlx::PgPool,
        plan_kept: crate::store::postgres::queries::PLAN_KEPT,
        labelled: "NOT EXISTS (SELECT 1 FROM jsonb_array_elements($5::jsonb) AS want \
            WHERE j.labels::jsonb ->> (want ->> 0) IS DISTINCT FROM want ->> 1)",
        told: "strpos(lower((j.error_class || ': ' || coalesce(j.error_message, '')) COLLATE \"C\"), $11) > 0",
        among: "j.seq = ANY(ARRAY(SELECT CAST(n AS bigint) FROM jsonb_array_elements_text($12::jsonb) AS n))",
        of_list: "j.seq = ANY(ARRAY(SELECT CAST(n AS bigint) FROM jsonb_array_elements_text($1::jsonb) AS n))",
        listed: "listed = $1",
        all_listed: "SELECT CAST(listed AS bigint), count(*) FROM jobs WHERE listed IS NOT NULL GROUP BY listed"
    );
}
pub(super) mod lookup {
    super::queries::lookup!(sqlx::Postgres);
}
pub(super) mod operations {
    super::queries::operations!(sqlx::Postgres, sqlx::PgPool, sqlx::PgConnection);
}
pub(super) mod parked {
    super::queries::parked!(sqlx::Postgres);
}
pub(super) mod pauses {
    super::queries::pauses!(sqlx::Postgres);
}
pub(super) mod schedules {
    super::queries::schedules!(sqlx::Postgres);
}
pub(super) mod slo {
    super::queries::slo!(sqlx::Postgres);
}

pub(super) async fn versions(pool: &PgPool, ids: &[JobId]) -> Result<Vec<(JobId, State, i64)>, Fault> {
    let rows = query("SELECT id, state, version FROM jobs WHERE id = ANY($1)").bind(bytes(ids)).fetch_all(pool).await?;
    rows.iter().map(rows::version).collect()
}

/// Says the ids of those that there were.
pub(super) async fn discard_letters(c: &mut PgConnection, seqs: &[i64]) -> Result<Vec<String>, Fault> {
    Ok(query_scalar("DELETE FROM dead_letters WHERE seq = ANY($1) RETURNING id").bind(seqs).fetch_all(c).await?)
}

/// The server's clock, in microseconds since 1970, as ours.
pub(super) async fn clock(pool: &PgPool) -> Result<Micros, Fault> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    Ok(Micros(query_scalar(sql).fetch_one(pool).await?))
}

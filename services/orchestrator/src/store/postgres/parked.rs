//! Messages of the outbox that were put aside.

use super::text::clean;
use crate::store::fault::Fault;
use crate::store::{PARKED_MAX, Park};
use agentforge_proto::time::Micros;
use sqlx::postgres::PgConnection;
use sqlx::{query, query_scalar};

/// Puts messages of the outbox aside while their row exists (a mark that is made twice is made once), and keeps the
/// newest of all.
pub(super) async fn park(c: &mut PgConnection, parks: &[Park], now: Micros) -> Result<(), Fault> {
    if parks.is_empty() {
        return Ok(());
    }
    query(
        "INSERT INTO outbox_parked (created_at, parked_at, subject, msg_id, code, reason, payload) \
         SELECT o.created_at, $2, n.subject, n.msg_id, n.code, n.reason, n.payload \
         FROM UNNEST($1::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[]) \
           WITH ORDINALITY AS n (seq, code, reason, subject, msg_id, payload, place) JOIN outbox AS o ON o.seq = n.seq \
         WHERE NOT EXISTS (SELECT 1 FROM outbox_parked AS p WHERE p.msg_id = n.msg_id AND p.subject = n.subject) \
         ORDER BY o.seq, place",
    )
    .bind(parks.iter().map(|p| p.seq).collect::<Vec<_>>())
    .bind(now.0)
    .bind(parks.iter().map(|p| p.code).collect::<Vec<_>>())
    .bind(parks.iter().map(|p| clean(&p.reason)).collect::<Vec<_>>())
    .bind(parks.iter().map(|p| clean(&p.message.subject)).collect::<Vec<_>>())
    .bind(parks.iter().map(|p| clean(&p.message.msg_id)).collect::<Vec<_>>())
    .bind(parks.iter().map(|p| &*p.message.payload).collect::<Vec<_>>())
    .execute(&mut *c)
    .await?;
    // By number: one that was retried or discarded has used its number up.
    query("DELETE FROM outbox_parked WHERE seq <= (SELECT max(seq) FROM outbox_parked) - $1")
        .bind(PARKED_MAX)
        .execute(c)
        .await?;
    Ok(())
}

/// Says the ids of the messages that there were, as `discard` does.
pub(super) async fn unpark(c: &mut PgConnection, which: Option<&[i64]>) -> Result<Vec<String>, Fault> {
    let moved = query_scalar(
        "WITH gone AS (DELETE FROM outbox_parked WHERE $1::bigint[] IS NULL OR seq = ANY($1) \
           RETURNING seq, created_at, subject, msg_id, payload), \
         moved AS (INSERT INTO outbox (claim_until, created_at, subject, msg_id, payload) \
           SELECT 0, created_at, subject, msg_id, payload FROM gone ORDER BY seq) \
         SELECT msg_id FROM gone ORDER BY seq",
    );
    Ok(moved.bind(which).fetch_all(c).await?)
}

pub(super) async fn discard(c: &mut PgConnection, which: Option<&[i64]>) -> Result<Vec<String>, Fault> {
    let gone = query_scalar("DELETE FROM outbox_parked WHERE $1::bigint[] IS NULL OR seq = ANY($1) RETURNING msg_id");
    Ok(gone.bind(which).fetch_all(c).await?)
}

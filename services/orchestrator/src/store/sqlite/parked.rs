//! Messages of the outbox that were put aside.

use crate::store::fault::Fault;
use sqlx::sqlite::SqliteConnection;
use sqlx::{query, query_as};

/// A message on its way aside, while its row of the outbox exists: a mark that is made twice is made once.
pub(super) const PARK: &str = "INSERT INTO outbox_parked (created_at, parked_at, subject, msg_id, code, reason, payload) \
     SELECT o.created_at, ?2, ?3, ?4, ?5, ?6, ?7 FROM outbox AS o WHERE o.seq = ?1 \
     AND NOT EXISTS (SELECT 1 FROM outbox_parked AS p WHERE p.msg_id = ?4 AND p.subject = ?3)";

/// Keeps the newest, by number: one that was retried or discarded has used its number up.
pub(super) const SHORTEN: &str = "DELETE FROM outbox_parked WHERE seq <= (SELECT max(seq) FROM outbox_parked) - ?";

/// The rows named, or all. What is done to them says the messages' ids.
const NAMED: &str = "SELECT seq, msg_id FROM outbox_parked \
    WHERE ?1 IS NULL OR seq IN (SELECT value FROM json_each(?1)) ORDER BY seq";

fn list(which: Option<&[i64]>) -> Option<String> {
    which.map(|seqs| serde_json::to_string(seqs).expect("numbers are always JSON"))
}

pub(super) async fn unpark(
    c: &mut SqliteConnection,
    next_outbox: &mut i64,
    which: Option<&[i64]>,
) -> Result<Vec<String>, Fault> {
    let found: Vec<(i64, String)> = query_as(NAMED).bind(list(which)).fetch_all(&mut *c).await?;
    for (seq, _) in &found {
        query(
            "INSERT INTO outbox (seq, claim_until, created_at, subject, msg_id, payload) \
             SELECT ?1, 0, created_at, subject, msg_id, payload FROM outbox_parked WHERE seq = ?2",
        )
        .bind(*next_outbox)
        .bind(seq)
        .execute(&mut *c)
        .await?;
        *next_outbox += 1;
        query("DELETE FROM outbox_parked WHERE seq = ?").bind(seq).execute(&mut *c).await?;
    }
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

pub(super) async fn discard(c: &mut SqliteConnection, which: Option<&[i64]>) -> Result<Vec<String>, Fault> {
    let found: Vec<(i64, String)> = query_as(NAMED).bind(list(which)).fetch_all(&mut *c).await?;
    for (seq, _) in &found {
        query("DELETE FROM outbox_parked WHERE seq = ?").bind(seq).execute(&mut *c).await?;
    }
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

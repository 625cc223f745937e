//! The audit log's chains: a transaction takes the first that no other one holds, as its last step.

use super::connection::Session;
use super::queries::audit as read;
use super::text::clean;
use super::write::join_outbox;
use crate::store::audit::{self, AuditKeep, PRUNE_STEP};
use crate::store::fault::Fault;
use crate::store::outbox::rows_of;
use crate::store::{CommitContext, OutboxMessage};
use agentforge_audit::{Chained, Entry, Hash, Head};
use agentforge_proto::time::Micros;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{query, query_as};

/// The first chain that no transaction holds; when all are held, the first of all, once it is free.
async fn take_head(c: &mut PgConnection) -> Result<Head, Fault> {
    let free = "SELECT chain, place, hash FROM audit_chains ORDER BY chain LIMIT 1 FOR UPDATE SKIP LOCKED";
    let mut found: Option<(i64, i64, Vec<u8>)> = query_as(free).fetch_optional(&mut *c).await?;
    if found.is_none() {
        let first = "SELECT chain, place, hash FROM audit_chains WHERE chain = 0 FOR UPDATE";
        found = query_as(first).fetch_optional(c).await?;
    }
    let (chain, place, hash) = found.ok_or_else(|| Fault::row("audit chain", "it is missing"))?;
    let hash = Hash::try_from(hash.as_slice()).map_err(|e| Fault::row("audit chain", e))?;
    Ok(Head { chain, place, hash })
}

/// Appends entries, and gives back their events for the outbox. Nothing else of the transaction may follow that waits for
/// rows of others.
pub(super) async fn append(
    c: &mut PgConnection,
    entries: Vec<Entry>,
    ctx: &CommitContext<'_>,
) -> Result<Vec<OutboxMessage>, Fault> {
    if entries.is_empty() {
        return Ok(vec![]);
    }
    let chained = store(c, entries).await?;
    Ok(chained.iter().map(|c| audit::event(c, ctx.mission.as_str())).collect())
}

/// The same outside the commit of a group: the events wait in the store for the next scan.
pub(super) async fn append_unclaimed(
    c: &mut PgConnection,
    entries: Vec<Entry>,
    ctx: &CommitContext<'_>,
) -> Result<(), Fault> {
    let events = append(c, entries, ctx).await?;
    join_outbox(c, &mut rows_of(events, || 0), false, ctx).await
}

/// Gives entries their places, and stores them and the new head.
async fn store(c: &mut PgConnection, entries: Vec<Entry>) -> Result<Vec<Chained>, Fault> {
    let mut head = take_head(c).await?;
    let chained: Vec<Chained> = entries.into_iter().map(|entry| head.append(entry)).collect();
    let of = |field: fn(&Entry) -> &str| chained.iter().map(|c| clean(field(&c.entry))).collect::<Vec<_>>();
    let maybe = |field: fn(&Entry) -> Option<&str>| chained.iter().map(|c| field(&c.entry)).collect::<Vec<_>>();
    query(
        "WITH moved AS (UPDATE audit_chains SET place = $2, hash = $3 WHERE chain = $1) \
         INSERT INTO audit (chain, place, id, at, surface, principal, role, address, request_id, operation, \
           object_kind, object_id, outcome, calls, detail, previous, hash) \
         SELECT $1, n.* FROM UNNEST($4::bigint[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[], \
           $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::bigint[], $17::text[], \
           $18::bytea[], $19::bytea[]) AS n",
    )
    .bind(head.chain)
    .bind(head.place)
    .bind(head.hash.0.to_vec())
    .bind(chained.iter().map(|c| c.place).collect::<Vec<_>>())
    .bind(of(|e| &e.id))
    .bind(chained.iter().map(|c| c.entry.at.0).collect::<Vec<_>>())
    .bind(of(|e| &e.surface))
    .bind(of(|e| &e.principal))
    .bind(of(|e| &e.role))
    .bind(maybe(|e| e.address.as_deref()))
    .bind(maybe(|e| e.request_id.as_deref()))
    .bind(of(|e| &e.operation))
    .bind(of(|e| &e.object_kind))
    .bind(maybe(|e| e.object_id.as_deref()))
    .bind(of(|e| &e.outcome))
    .bind(chained.iter().map(|c| i64::from(c.entry.calls)).collect::<Vec<_>>())
    .bind(maybe(|e| e.detail.as_deref()))
    .bind(chained.iter().map(|c| c.previous.0.as_slice()).collect::<Vec<_>>())
    .bind(chained.iter().map(|c| c.hash.0.as_slice()).collect::<Vec<_>>())
    .execute(c)
    .await?;
    Ok(chained)
}

/// Entries of other services; those that are known are left out. Says how many were new.
pub(super) async fn take_in(pool: &PgPool, entries: Vec<Entry>) -> Result<u64, Fault> {
    let mut session = Session::open(pool).await?;
    let done = async {
        let mut tx = session.begin().await?;
        let mut new: Vec<Entry> = Vec::new();
        for entry in entries {
            if !new.iter().any(|known| known.id == entry.id) && !read::has(&mut *tx, &entry.id).await? {
                new.push(entry);
            }
        }
        let taken = new.len() as u64;
        if taken > 0 {
            store(&mut tx, new).await?;
        }
        tx.commit().await?;
        Ok(taken)
    };
    let done = done.await;
    session.settle(done)
}

/// Appends the entry that names all heads.
pub(super) async fn checkpoint(pool: &PgPool, ctx: &CommitContext<'_>) -> Result<Head, Fault> {
    let mut session = Session::open(pool).await?;
    let done = async {
        let mut tx = session.begin().await?;
        let heads: Vec<Head> = read::chains(&mut *tx).await?.iter().map(|chain| chain.head).collect();
        let chained = store(&mut tx, vec![audit::checkpoint(&heads, ctx.now)]).await?;
        let last = chained.first().ok_or_else(|| Fault::row("audit chain", "it is missing"))?;
        let event = audit::event(last, ctx.mission.as_str());
        query("INSERT INTO outbox (claim_until, created_at, subject, msg_id, payload) VALUES (0, $1, $2, $3, $4)")
            .bind(ctx.now.0)
            .bind(event.subject)
            .bind(event.msg_id)
            .bind(&*event.payload)
            .execute(&mut *tx)
            .await?;
        let head = Head { chain: last.chain, place: last.place, hash: last.hash };
        tx.commit().await?;
        Ok(head)
    };
    let done = done.await;
    session.settle(done)
}

/// Takes the oldest entries out; says how many. At most `PRUNE_STEP` of each chain. Commits wait meanwhile.
pub(super) async fn prune(pool: &PgPool, keep: AuditKeep, ctx: &CommitContext<'_>) -> Result<u64, Fault> {
    let mut session = Session::open(pool).await?;
    let done = async {
        let mut tx = session.begin().await?;
        query("SELECT chain FROM audit_chains ORDER BY chain FOR UPDATE").execute(&mut *tx).await?;
        let mut gone = 0;
        for chain in read::chains(&mut *tx).await? {
            let first = read::first(&mut *tx, chain.head.chain, PRUNE_STEP).await?;
            if let Some(base) = audit::prunable(&chain, &first, keep) {
                gone += read::cut(&mut tx, chain.head.chain, base).await?;
            }
        }
        if gone > 0 {
            let entries = audit::attest(&read::chains(&mut *tx).await?, Micros::now());
            append_unclaimed(&mut tx, entries, ctx).await?;
        }
        tx.commit().await?;
        Ok(gone)
    };
    let done = done.await;
    session.settle(done)
}

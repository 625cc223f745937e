//! The audit log's one chain: the writer has its head in memory, and every transaction that has entries moves it.

use super::connection::Writer;
use super::lite::{Bind, Known, Lite, take};
use super::queries::audit as read;
use super::sql::execute;
use super::statements::{INSERT_AUDIT, INSERT_OUTBOX, MOVE_HEAD};
use crate::store::audit::{self, AuditKeep, PRUNE_STEP};
use crate::store::fault::Fault;
use crate::store::outbox::rows_of;
use crate::store::{CommitContext, OutboxRow};
use agentforge_audit::{Chained, Entry, Head};
use agentforge_proto::time::Micros;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

/// Gives entries their places.
pub(super) fn chain(head: &mut Head, entries: Vec<Entry>) -> Vec<Chained> {
    entries.into_iter().map(|entry| head.append(entry)).collect()
}

/// A row of the outbox, claimed until then by `owner`.
pub(super) fn bind_row(a: &mut impl Bind, row: &OutboxRow, until: i64, owner: Option<&str>, now: Micros) {
    let stored = row.stored(until);
    a.number(row.seq).number(stored.claim_until).number(stored.group_until).text(owner).number(now.0);
    a.text(stored.subject).text(stored.msg_id).bytes(&*stored.payload);
}

/// Adds entries and moves the head. Their events are the caller's to add.
pub(super) fn write(lite: &Lite, chained: &[Chained]) -> Result<(), Fault> {
    lite.each(&INSERT_AUDIT, chained, |a, entry| bind(a, entry))?;
    lite.each(MOVE_HEAD, chained.last(), |a, entry| bind_head(a, entry))
}

async fn store(c: &mut SqliteConnection, chained: &[Chained]) -> Result<(), Fault> {
    for entry in chained {
        execute(c, &INSERT_AUDIT, |a| bind(a, entry)).await?;
    }
    if let Some(last) = chained.last() {
        execute(c, MOVE_HEAD, |a| bind_head(a, last)).await?;
    }
    Ok(())
}

fn bind_head(a: &mut impl Bind, last: &Chained) {
    a.number(last.chain).number(last.place).bytes(last.hash.0.as_slice());
}

fn bind(a: &mut impl Bind, c: &Chained) {
    let e = &c.entry;
    a.number(c.chain).number(c.place).text(&*e.id).number(e.at.0).text(&*e.surface).text(&*e.principal).text(&*e.role);
    a.text(e.address.as_deref()).text(e.request_id.as_deref()).text(&*e.operation).text(&*e.object_kind);
    a.text(e.object_id.as_deref()).text(&*e.outcome).number(i64::from(e.calls)).text(e.detail.as_deref());
    a.bytes(c.previous.0.as_slice()).bytes(c.hash.0.as_slice());
}

/// Appends entries inside a transaction that is the caller's.
pub(super) async fn append(
    c: &mut SqliteConnection,
    known: &mut Known,
    entries: Vec<Entry>,
    ctx: &CommitContext<'_>,
) -> Result<(), Fault> {
    let chained = chain(&mut known.audit, entries);
    store(c, &chained).await?;
    let events = chained.iter().map(|entry| audit::event(entry, ctx.mission.as_str())).collect();
    for row in rows_of(events, || take(&mut known.next_outbox)) {
        execute(c, &INSERT_OUTBOX, |a| bind_row(a, &row, 0, None, ctx.now)).await?;
    }
    Ok(())
}

/// Entries of other services; those that are known are left out. Says how many were new.
pub(super) async fn take_in(w: &mut Writer, entries: Vec<Entry>) -> Result<u64, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut new: Vec<Entry> = Vec::new();
    for entry in entries {
        if !new.iter().any(|known| known.id == entry.id) && !read::has(&mut *tx, &entry.id).await? {
            new.push(entry);
        }
    }
    let taken = new.len() as u64;
    // They are events already: they are not published again.
    let chained = chain(&mut w.known.audit, new);
    store(&mut tx, &chained).await?;
    tx.commit().await?;
    Ok(taken)
}

/// Appends the entry that names the head.
pub(super) async fn checkpoint(w: &mut Writer, ctx: &CommitContext<'_>) -> Result<Head, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let entry = audit::checkpoint(&[w.known.audit], ctx.now);
    append(&mut tx, &mut w.known, vec![entry], ctx).await?;
    tx.commit().await?;
    Ok(w.known.audit)
}

/// Takes the oldest entries out; says how many. At most `PRUNE_STEP`.
pub(super) async fn prune(w: &mut Writer, keep: AuditKeep, ctx: &CommitContext<'_>) -> Result<u64, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut gone = 0;
    for chain in read::chains(&mut *tx).await? {
        let first = read::first(&mut *tx, chain.head.chain, PRUNE_STEP).await?;
        if let Some(base) = audit::prunable(&chain, &first, keep) {
            gone += read::cut(&mut tx, chain.head.chain, base).await?;
        }
    }
    if gone > 0 {
        let entries = audit::attest(&read::chains(&mut *tx).await?, Micros::now());
        append(&mut tx, &mut w.known, entries, ctx).await?;
    }
    tx.commit().await?;
    Ok(gone)
}

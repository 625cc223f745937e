//! The audit log's one chain: the writer has its head in memory, and every transaction that has entries moves it.

use super::connection::Writer;
use super::queries::audit as read;
use super::sql::{Args, Script};
use super::statements::{INSERT_AUDIT, INSERT_OUTBOX, MOVE_HEAD};
use crate::store::audit::{self, AuditKeep, PRUNE_STEP};
use crate::store::fault::Fault;
use crate::store::{CommitContext, OutboxRow};
use agentforge_audit::{Chained, Entry, Head};
use agentforge_proto::time::Micros;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

/// Gives entries their places.
pub(super) fn chain(head: &mut Head, entries: Vec<Entry>) -> Vec<Chained> {
    entries.into_iter().map(|entry| head.append(entry)).collect()
}

/// Their events, as rows of the outbox.
pub(super) fn events(chained: &[Chained], mission: &str, mut next_seq: impl FnMut() -> i64) -> Vec<OutboxRow> {
    let rows = chained.iter().map(|c| {
        let m = audit::event(c, mission);
        OutboxRow { seq: next_seq(), subject: m.subject, msg_id: m.msg_id, payload: m.payload }
    });
    rows.collect()
}

/// Adds the entries to a script. Their events are the caller's to add.
pub(super) fn write(script: &mut Script, chained: &[Chained]) {
    INSERT_AUDIT.add(script, chained, bind);
    MOVE_HEAD.add(script, last(chained), bind_head);
}

async fn store(c: &mut SqliteConnection, chained: &[Chained]) -> Result<(), Fault> {
    INSERT_AUDIT.execute(&mut *c, chained, bind).await?;
    MOVE_HEAD.execute(c, last(chained), bind_head).await?;
    Ok(())
}

fn last(chained: &[Chained]) -> &[Chained] {
    &chained[chained.len().saturating_sub(1)..]
}

fn bind_head(a: &mut Args, last: &Chained) {
    a.push(last.chain).push(last.place).push(last.hash.0.to_vec());
}

fn bind(a: &mut Args, c: &Chained) {
    let e = &c.entry;
    a.push(c.chain).push(c.place).text(&e.id).push(e.at.0).text(&e.surface).text(&e.principal).text(&e.role);
    a.maybe_text(e.address.as_deref()).maybe_text(e.request_id.as_deref()).text(&e.operation).text(&e.object_kind);
    a.maybe_text(e.object_id.as_deref()).text(&e.outcome).push(i64::from(e.calls)).maybe_text(e.detail.as_deref());
    a.push(c.previous.0.to_vec()).push(c.hash.0.to_vec());
}

/// Appends entries inside a transaction that is the caller's.
pub(super) async fn append(
    c: &mut SqliteConnection,
    head: &mut Head,
    next_outbox: &mut i64,
    entries: Vec<Entry>,
    ctx: &CommitContext<'_>,
) -> Result<(), Fault> {
    let chained = chain(head, entries);
    store(c, &chained).await?;
    let rows = events(&chained, ctx.mission.as_str(), || {
        *next_outbox += 1;
        *next_outbox - 1
    });
    let bind = |a: &mut Args, m: &OutboxRow| {
        a.push(m.seq).push(0).push(None::<String>).push(ctx.now.0);
        a.text(&m.subject).text(&m.msg_id).push(m.payload.clone());
    };
    INSERT_OUTBOX.execute(c, &rows, bind).await?;
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
    let chained = chain(&mut w.audit, new);
    store(&mut tx, &chained).await?;
    tx.commit().await?;
    Ok(taken)
}

/// Appends the entry that names the head.
pub(super) async fn checkpoint(w: &mut Writer, ctx: &CommitContext<'_>) -> Result<Head, Fault> {
    let mut tx = w.connection.begin_with("BEGIN IMMEDIATE").await?;
    let entry = audit::checkpoint(&[w.audit], ctx.now);
    append(&mut tx, &mut w.audit, &mut w.next_outbox, vec![entry], ctx).await?;
    tx.commit().await?;
    Ok(w.audit)
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
        append(&mut tx, &mut w.audit, &mut w.next_outbox, entries, ctx).await?;
    }
    tx.commit().await?;
    Ok(gone)
}

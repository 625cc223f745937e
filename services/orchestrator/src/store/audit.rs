//! The audit log as the stores keep it: which entries are asked for, and what of it is the same in both.
//!
//! Entries are appended inside the transaction of what they are about: both are stored, or neither. SQLite has one
//! chain, which its one writer holds in memory. Postgres has eight, and a transaction takes the first that no other one
//! holds, as its last step: orchestrators that commit at the same time never wait for each other's disk, and a
//! checkpoint that names the heads of all ties them together.

use super::filter::Page;
use super::outbox::{Origin, OutboxMessage};
use agentforge_audit::{Base, Chain, Chained, Entry, Event, Hash, Head, PRUNE, Pruned};
use agentforge_proto::time::Micros;

/// Entries taken out of one chain in one transaction, at most.
pub(super) const PRUNE_STEP: i64 = 1_000;
/// Rows that one page of a filtered list reads, at most.
pub const AUDIT_SCAN_MAX: i64 = 50_000;
/// An id this long is also looked for in ids that contain it, and among those that an entry names: a shorter text is in many.
pub(super) const ID_BYTES_MIN: i64 = 16;

/// Which entries to list. Newest first; all that is given must match.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Of this principal.
    pub principal: Option<String>,
    /// Of this operation.
    pub operation: Option<String>,
    /// About the thing with this id, or naming it.
    pub object: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// At this moment or later.
    pub since: Option<Micros>,
    /// Before it.
    pub until: Option<Micros>,
    /// Rows before this one (the last row number of the page before).
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// An entry with the number of its row.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Row number: about the order of writing.
    pub seq: i64,
    /// The entry in its chain.
    pub chained: Chained,
}

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub struct AuditKeep {
    /// Entries from this moment on.
    pub since: Micros,
    /// At most so many of a chain.
    pub entries: i64,
}

/// The event of an entry.
pub(super) fn event(chained: &Chained, mission: &str) -> OutboxMessage {
    OutboxMessage {
        subject: agentforge_audit::subject(agentforge_audit::ORCHESTRATOR, mission, &chained.entry.operation),
        msg_id: chained.entry.id.clone(),
        payload: Event::chained(chained, mission).to_json().into(),
        origin: Origin::default(),
    }
}

/// A page of rows; `end` is where the scan ended, if there is more behind it.
pub(super) fn page_of(rows: Vec<AuditRow>, filter: &AuditFilter, end: Option<i64>) -> Page<AuditRow> {
    let is_full = rows.len() >= filter.limit as usize;
    let next = rows.last().filter(|_| is_full).map(|last| last.seq).or(end);
    Page { items: rows, next }
}

/// How far a chain can be pruned, by its first entries as place, time and hash: the place and hash of the last that
/// goes. The newest always stays.
pub(super) fn prunable(chain: &Chain, first: &[(i64, i64, Vec<u8>)], keep: AuditKeep) -> Option<Base> {
    let goes = |(place, at, _): &&(i64, i64, Vec<u8>)| {
        *place < chain.head.place && (*at < keep.since.0 || *place <= chain.head.place - keep.entries)
    };
    let (place, _, hash) = first.iter().take_while(goes).last()?;
    Some(Base { place: *place, hash: Hash::try_from(hash.as_slice()).ok()? })
}

/// The entries that attest where chains begin. All are attested again whenever one is pruned, so that the newest word
/// about each is never older than what is kept.
pub(super) fn attest(chains: &[Chain], now: Micros) -> Vec<Entry> {
    let pruned = chains.iter().filter(|c| c.base.place > 0).map(|c| {
        let said = Pruned { chain: c.head.chain, place: c.base.place, hash: c.base.hash };
        Entry::own(PRUNE, &serde_json::to_value(said).expect("numbers and text are JSON"), now)
    });
    pruned.collect()
}

/// The entry that names the heads of all chains.
pub(super) fn checkpoint(heads: &[Head], now: Micros) -> Entry {
    let heads: Vec<_> = heads.iter().filter(|head| head.place > 0).collect();
    Entry::own(agentforge_audit::CHECKPOINT, &serde_json::json!({ "heads": heads }), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_too_much_goes_and_the_newest_stays() {
        let head = |place| Chain {
            head: Head { chain: 0, place, hash: Hash([9; 32]) },
            base: Base { place: 0, hash: Hash::default() },
        };
        let rows: Vec<_> = (1..=4_u8).map(|n| (i64::from(n), i64::from(n) * 10, vec![n; 32])).collect();
        let of = |since, entries| {
            prunable(&head(4), &rows, AuditKeep { since: Micros(since), entries }).map(|base| base.place)
        };
        assert_eq!(of(0, 100), None);
        assert_eq!(of(25, 100), Some(2));
        assert_eq!(of(0, 1), Some(3));
        assert_eq!(of(1_000, 0), Some(3), "the newest stays");
    }
}

//! An entry in its place and a chain's ends, as others see them: as JSON for REST and the command line, and on the wire of
//! gRPC, from which they are read back.

use crate::{
    chain::{Chained, Hash, Head},
    entry::Entry,
    verify::{Base, Chain},
};
use agentforge_proto::{time::Micros, v1};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What is recorded of one call, or of several equal ones that share a commit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct EntryView {
    /// UUID.
    id: String,
    /// When it was decided.
    #[schema(format = DateTime)]
    at: String,
    /// Where it was asked: rest, grpc, or the name of a service.
    surface: String,
    /// The name of the caller's token.
    principal: String,
    /// Its role.
    role: String,
    /// The address that the connection came from.
    address: Option<String>,
    /// X-Request-ID of the call; of the first, where there are several.
    request_id: Option<String>,
    /// What was asked, by its name in this document.
    operation: String,
    /// The kind of thing that it is about.
    object_kind: String,
    /// Its id; null where there are several, or none.
    object_id: Option<String>,
    /// `ok`, or the code of the refusal.
    outcome: String,
    /// How many equal calls it stands for.
    calls: u32,
    /// Before and after, counts; null when there is nothing to say.
    #[schema(value_type = Option<Object>)]
    detail: Option<Box<RawValue>>,
    /// Its chain.
    chain: i64,
    /// Its place there, from 1.
    place: i64,
    /// SHA-256 of the entry before, in hex.
    previous: String,
    /// Its own, in hex.
    hash: String,
}

impl From<Chained> for EntryView {
    fn from(c: Chained) -> Self {
        let e = c.entry;
        Self {
            id: e.id,
            // Always with microseconds, so that text sorts by time.
            at: format!("{:.6}", e.at.timestamp()),
            surface: e.surface,
            principal: e.principal,
            role: e.role,
            address: e.address,
            request_id: e.request_id,
            operation: e.operation,
            object_kind: e.object_kind,
            object_id: e.object_id,
            outcome: e.outcome,
            calls: e.calls,
            // What somebody has put into the database instead of JSON is for the verification to find.
            detail: e.detail.and_then(|detail| RawValue::from_string(detail).ok()),
            chain: c.chain,
            place: c.place,
            previous: c.previous.to_string(),
            hash: c.hash.to_string(),
        }
    }
}

/// Where a chain begins and ends.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditChain)]
pub struct ChainView {
    /// Its number.
    chain: i64,
    /// The place of its last entry; 0 when it has none.
    place: i64,
    /// The hash of its last entry, in hex.
    hash: String,
    /// The place of the last entry that was pruned; 0 when none was.
    base_place: i64,
    /// The hash of that entry, in hex.
    base_hash: String,
}

impl From<Chain> for ChainView {
    fn from(c: Chain) -> Self {
        Self {
            chain: c.head.chain,
            place: c.head.place,
            hash: c.head.hash.to_string(),
            base_place: c.base.place,
            base_hash: c.base.hash.to_string(),
        }
    }
}

impl From<Chained> for v1::AuditEntry {
    fn from(c: Chained) -> Self {
        let e = c.entry;
        Self {
            id: e.id,
            at: Some(e.at.to_proto()),
            surface: e.surface,
            principal: e.principal,
            role: e.role,
            address: e.address,
            request_id: e.request_id,
            operation: e.operation,
            object_kind: e.object_kind,
            object_id: e.object_id,
            outcome: e.outcome,
            calls: e.calls,
            detail: e.detail,
            chain: c.chain,
            place: c.place,
            previous: c.previous.0.to_vec(),
            hash: c.hash.0.to_vec(),
        }
    }
}

/// An entry of the wire that has no time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoTime {
    /// Its id.
    pub id: String,
}

impl TryFrom<v1::AuditEntry> for Chained {
    type Error = NoTime;

    fn try_from(e: v1::AuditEntry) -> Result<Self, NoTime> {
        let Some(at) = e.at.as_ref().and_then(Micros::from_proto) else { return Err(NoTime { id: e.id }) };
        Ok(Self {
            chain: e.chain,
            place: e.place,
            previous: hash_of(&e.previous),
            hash: hash_of(&e.hash),
            entry: Entry {
                id: e.id,
                at,
                surface: e.surface,
                principal: e.principal,
                role: e.role,
                address: e.address,
                request_id: e.request_id,
                operation: e.operation,
                object_kind: e.object_kind,
                object_id: e.object_id,
                outcome: e.outcome,
                calls: e.calls,
                detail: e.detail,
            },
        })
    }
}

impl From<Chain> for v1::AuditChain {
    fn from(c: Chain) -> Self {
        Self {
            chain: c.head.chain,
            place: c.head.place,
            hash: c.head.hash.0.to_vec(),
            base_place: c.base.place,
            base_hash: c.base.hash.0.to_vec(),
        }
    }
}

impl From<v1::AuditChain> for Chain {
    fn from(c: v1::AuditChain) -> Self {
        Self {
            head: Head { chain: c.chain, place: c.place, hash: hash_of(&c.hash) },
            base: Base { place: c.base_place, hash: hash_of(&c.base_hash) },
        }
    }
}

/// A hash of another length is none that was written.
fn hash_of(bytes: &[u8]) -> Hash {
    Hash::try_from(bytes).unwrap_or(Hash([0xff; 32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_from_the_wire_and_is_shown_with_all_that_it_says() {
        let mut entry = Entry::own("A", &serde_json::json!({"n": 1}), Micros(1_700_000_000_000_000));
        entry.object_id = Some("o".to_owned());
        let chained = Head::first(0).append(entry);
        let wire = v1::AuditEntry::from(chained.clone());
        assert_eq!(Chained::try_from(wire.clone()), Ok(chained.clone()));
        let id = chained.entry.id.clone();
        assert_eq!(Chained::try_from(v1::AuditEntry { at: None, ..wire.clone() }), Err(NoTime { id }));
        let cut = Chained::try_from(v1::AuditEntry { hash: vec![1], ..wire }).unwrap();
        assert_ne!(cut.hash, chained.hash);

        let shown = serde_json::to_value(EntryView::from(chained.clone())).unwrap();
        assert_eq!(shown["at"], "2023-11-14T22:13:20.000000Z");
        assert_eq!((&shown["detail"], &shown["object_id"]), (&serde_json::json!({"n": 1}), &"o".into()));
        assert_eq!(shown["hash"], chained.hash.to_string());
        let broken = Chained { entry: Entry { detail: Some("{".to_owned()), ..chained.entry.clone() }, ..chained };
        assert!(serde_json::to_value(EntryView::from(broken)).unwrap()["detail"].is_null());
    }
}

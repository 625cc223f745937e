//! The audit log as JSON.

use super::{Moment, raw};
use agentforge_audit::{Chain, Chained};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What is recorded of one call, or of several equal ones that share a commit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditEntryView {
    /// UUID.
    id: String,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
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

impl From<Chained> for AuditEntryView {
    fn from(c: Chained) -> Self {
        let e = c.entry;
        Self {
            id: e.id,
            at: Moment(e.at),
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
            detail: e.detail.and_then(|detail| raw("audit entry's detail", detail).ok()),
            chain: c.chain,
            place: c.place,
            previous: c.previous.to_string(),
            hash: c.hash.to_string(),
        }
    }
}

/// A page of entries, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditList {
    /// The entries.
    pub(crate) entries: Vec<AuditEntryView>,
    /// Give it as `cursor` to get the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// Where a chain begins and ends.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditChain)]
pub struct AuditChainView {
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

impl From<Chain> for AuditChainView {
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

/// All chains.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditChainList {
    /// The chains.
    pub(crate) chains: Vec<AuditChainView>,
}

/// Entries of one chain in their order.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditChainEntries {
    /// The entries.
    pub(crate) entries: Vec<AuditEntryView>,
}

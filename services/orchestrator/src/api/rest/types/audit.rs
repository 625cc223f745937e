//! The audit log as JSON.

use agentforge_audit::{ChainView, EntryView};
use serde::Serialize;
use utoipa::ToSchema;

/// A page of entries, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditList {
    /// The entries.
    pub(crate) entries: Vec<EntryView>,
    /// Give it as `cursor` to get the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// All chains.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditChainList {
    /// The chains.
    pub(crate) chains: Vec<ChainView>,
}

/// Entries of one chain in their order.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditChainEntries {
    /// The entries.
    pub(crate) entries: Vec<EntryView>,
}

//! What to make of the answers of jsz: how deep, which families, which labels.

use crate::endpoint::Namespace;
use std::fmt::Write;

/// Accounts of a page; more is cut down by the server.
pub const PAGE: u64 = 1024;

/// How much of the answer is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Accounts without their streams.
    #[default]
    Accounts,
    /// Accounts and streams, without consumers.
    Streams,
    /// Accounts, streams and consumers: the largest answer, megabytes for thousands of consumers.
    Consumers,
}

/// A key of the metadata of streams or consumers, and the label that it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaKey {
    /// As users write it.
    pub key: String,
    /// As a label.
    pub label: String,
}

/// What to make of the answers.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How much of the answer is asked for.
    pub level: Level,
    /// The names of the stock family, if it is wanted.
    pub stock: Option<Namespace>,
    /// Whether the compact family is wanted.
    pub is_compact: bool,
    /// Whether the compact family has consumers that are not durable.
    pub has_ephemeral: bool,
    /// Labels of streams in the stock family.
    pub stream_meta: Vec<MetaKey>,
    /// Labels of consumers in the stock family.
    pub consumer_meta: Vec<MetaKey>,
    /// Rows of one table.
    pub rows_max: usize,
}

impl Plan {
    /// Path and query of a page, by its first account.
    pub fn path(&self, offset: u64) -> String {
        let mut path = match self.level {
            Level::Accounts => "jsz?accounts=true".to_owned(),
            Level::Streams => "jsz?streams=true&config=true".to_owned(),
            Level::Consumers => "jsz?consumers=true&config=true".to_owned(),
        };
        if self.level == Level::Consumers && self.stock.is_some() {
            path.push_str("&raft=true");
        }
        if offset > 0 {
            // Cannot fail: a String takes everything.
            let _ = write!(path, "&offset={offset}&limit={PAGE}");
        }
        path
    }
}

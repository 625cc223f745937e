//! What the board's store is asked, and what it answers: bounds, filters, counts, and why it did not do as asked.

use super::super::item::{Item, Status};
use uuid::Uuid;

/// Owners that are counted one by one; the others are counted together.
pub const OWNERS_COUNTED: i64 = 50;

/// Bounds of the board.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Items at most.
    pub items_max: i64,
    /// Events that wait, at most.
    pub outbox_max: i64,
}

/// Why the store did not do as asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's own.
    #[error("the database is unavailable")]
    Database(#[from] sqlx::Error),
    /// A row that this version cannot read.
    #[error("a stored item cannot be read: {0}")]
    Corrupt(String),
    /// The board is full.
    #[error("the board has {0} items, which is the limit (INTAKE_ITEMS_MAX); delete some")]
    Full(i64),
    /// Too many events wait for NATS.
    #[error(
        "{0} events wait for NATS, which is the limit (INTAKE_OUTBOX_MAX); changes are taken again when it is back"
    )]
    OutboxFull(i64),
}

/// What became of a change.
#[derive(Debug)]
pub enum Changed<R> {
    /// There is no such item.
    Missing,
    /// The change was refused; the item is as it was.
    Refused(R),
    /// The item as it is now. Equal to what it was: nothing was stored, and no event goes out.
    Is(Box<Item>),
}

/// Which items.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this owner; an empty one: without an owner.
    pub owner: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// In this state.
    pub status: Option<Status>,
    /// Before this one.
    pub before: Option<Uuid>,
}

/// How many items there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By state, in the states' order.
    pub by_status: [i64; Status::ALL.len()],
    /// By owner, those with most items first; an empty name: without one. At most [`OWNERS_COUNTED`].
    pub by_owner: Vec<(String, i64)>,
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> i64 {
        self.by_status.iter().sum()
    }
}

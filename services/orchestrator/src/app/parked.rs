//! Messages of the outbox that were put aside: what an operator can do about them.

use super::audit::asked;
use super::{App, Page, page, page_limit};
use crate::caller::Caller;
use crate::error::Error;
use crate::store::{Order, Parked};
use agentforge_audit::Entry;
use serde_json::json;
use tracing::info;

impl App {
    /// Messages that were put aside, newest first.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn parked(&self, limit: u32, cursor: Option<&str>) -> Result<Page<Parked>, Error> {
        let limit = page_limit(limit)?;
        let wrong = |_| Error::field("cursor", "cursor is not one that a listing gave; start without it");
        let before = cursor.filter(|c| !c.is_empty()).map(str::parse).transpose().map_err(wrong)?;
        let items = self.store().parked(before, limit + 1).await?;
        Ok(page(items, limit, |p| p.seq.to_string()))
    }

    /// Puts messages back into the outbox: these, or all. The relay finds them at its next scan.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn retry_parked(&self, caller: &Caller, which: Option<Vec<i64>>) -> Result<u64, Error> {
        let entry = named(caller, which.as_deref());
        let messages = self.order(Order::Unpark(which), entry).await?;
        info!(messages, "parked messages are published again");
        Ok(messages)
    }

    /// Deletes messages that were put aside: these, or all.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn discard_parked(&self, caller: &Caller, which: Option<Vec<i64>>) -> Result<u64, Error> {
        let entry = named(caller, which.as_deref());
        let messages = self.order(Order::DiscardParked(which), entry).await?;
        info!(messages, "parked messages discarded");
        Ok(messages)
    }
}

/// The entry about these messages, or about all: the store adds the ids of those that there were.
fn named(caller: &Caller, which: Option<&[i64]>) -> Entry {
    let spec = match which {
        Some(ids) => json!({ "ids": ids }),
        None => json!({ "all": true }),
    };
    caller.entry().about("parked_message", None).with(&json!({ "asked": asked(&spec) }))
}

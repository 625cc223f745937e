//! The audit log as the application keeps it: refusals, reads of what is sensitive, orders with their entries, and what
//! callers may ask of the log.

use super::{App, Page, page_limit};
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::metrics;
use crate::store::{AuditFilter, AuditKeep, AuditRow, Order};
use agentforge_audit::{Chain, Chained, Entry, Head};
use agentforge_proto::time::Micros;
use std::time::Duration;
use tracing::warn;

/// A refused caller is not kept longer than this while the database does not take the entry.
const REFUSAL_WAIT: Duration = Duration::from_secs(2);
/// Ids of a request that its entry repeats, at most.
const LISTED_MAX: usize = 20;

/// Which entries of the audit log to list, as asked. All that is given must match.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// The name of a principal.
    pub principal: Option<String>,
    /// An operation, by its name in the API.
    pub operation: Option<String>,
    /// The id of a thing.
    pub object: Option<String>,
    /// `ok`, or the code of a refusal.
    pub outcome: Option<String>,
    /// At this moment or later.
    pub since: Option<Micros>,
    /// Before it.
    pub until: Option<Micros>,
    /// Size of a page, up to [`PAGE_MAX`](super::PAGE_MAX); 0: [`PAGE_DEFAULT`](super::PAGE_DEFAULT).
    pub limit: u32,
    /// Where the page before ended; none: the newest entry.
    pub cursor: Option<String>,
}

/// Whether a refusal says something about the caller. What only says that we cannot do it now has no entry: it would be
/// written when writing is what does not work, or is too much.
const fn is_about_the_caller(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::TooLarge
            | Code::PermissionDenied
            | Code::NotFound
            | Code::Conflict
            | Code::FailedPrecondition
    )
}

/// What was asked, as an entry has it. A long list of ids is counted: the entries of what is done name them.
pub(super) fn asked(spec: &impl serde::Serialize) -> serde_json::Value {
    let mut spec = serde_json::to_value(spec).unwrap_or_default();
    for value in spec.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
        match value.as_array() {
            Some(list) if list.len() > LISTED_MAX => *value = serde_json::json!({ "count": list.len() }),
            _ => {}
        }
    }
    spec
}

impl App {
    /// The result, after a refusal in it was recorded. What failed for another reason was not done either.
    pub(super) async fn recorded<T>(
        &self,
        caller: &Caller,
        kind: &str,
        id: Option<&str>,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(e) = &result
            && is_about_the_caller(e.code)
        {
            self.record_refusal(caller, kind, id, e).await;
        }
        result
    }

    /// Records that a call was refused. Nothing was done, so it stays refused where this cannot be stored.
    pub async fn record_refusal(&self, caller: &Caller, kind: &str, id: Option<&str>, refusal: &Error) {
        let entry = caller.entry().about(kind, id.map(str::to_owned)).ended(refusal.code.as_str());
        let recorded = tokio::time::timeout(REFUSAL_WAIT, self.0.committer.record(entry)).await;
        let late = || Error::new(Code::Unavailable, "the database does not take it in time");
        if let Err(e) = recorded.unwrap_or_else(|_| Err(late())) {
            warn!(error = %e, principal = caller.name(), operation = caller.operation(), "a refusal is not in the audit log");
        }
    }

    /// Records a read of something sensitive, before it is answered.
    ///
    /// # Errors
    /// `unavailable`: it must not be answered then.
    pub(super) async fn record_read(&self, caller: &Caller, kind: &str, id: &str) -> Result<(), Error> {
        self.0.committer.record(caller.entry().about(kind, Some(id.to_owned()))).await
    }

    /// Records that work on many jobs begins, before the first of them is changed.
    ///
    /// # Errors
    /// `unavailable`: then it must not begin.
    pub(super) async fn record_start(&self, caller: &Caller, spec: &impl serde::Serialize) -> Result<(), Error> {
        let entry = caller.entry().about("job", None).with(&asked(spec));
        self.0.committer.record(entry).await
    }

    /// Carries out an order with its entry; says how many things it was about.
    pub(super) async fn order(&self, order: Order, entry: Entry) -> Result<u64, Error> {
        let done = self.0.store.order(order, entry, self.0.committer.context(Micros::now())).await?;
        metrics::AUDIT_CALLS.add(&[], 1);
        Ok(done)
    }

    /// A page of the audit log, newest first.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn audit(&self, query: AuditQuery) -> Result<Page<AuditRow>, Error> {
        let given = |text: Option<String>| text.filter(|t| !t.is_empty());
        let wrong = |_| Error::field("cursor", "cursor is not one that a listing gave; start without it");
        let filter = AuditFilter {
            principal: given(query.principal),
            operation: given(query.operation),
            object: given(query.object),
            outcome: given(query.outcome),
            since: query.since,
            until: query.until,
            before: given(query.cursor).map(|c| c.parse().map_err(wrong)).transpose()?,
            limit: page_limit(query.limit)?,
        };
        let found = self.0.store.audit(&filter).await?;
        Ok(Page { items: found.items, next: found.next.map(|n| n.to_string()) })
    }

    /// The chains of the audit log.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn audit_chains(&self) -> Result<Vec<Chain>, Error> {
        Ok(self.0.store.audit_chains().await?)
    }

    /// A chain's entries in their order, after the place `after`.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn audit_chain(&self, chain: i64, after: i64, limit: u32) -> Result<Vec<Chained>, Error> {
        Ok(self.0.store.audit_chain(chain, after, page_limit(limit)?).await?)
    }

    /// Takes entries of other services in; says how many were new.
    ///
    /// # Errors
    /// `unavailable`: nothing was stored.
    pub(crate) async fn take_in_audit(&self, entries: Vec<Entry>) -> Result<u64, Error> {
        Ok(self.0.store.take_in(entries).await?)
    }

    /// Writes a checkpoint, whose hash is the anchor of all entries before it.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn checkpoint_audit(&self) -> Result<Head, Error> {
        Ok(self.0.store.checkpoint_audit(self.0.committer.context(Micros::now())).await?)
    }

    /// Takes the oldest entries out; says how many.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn prune_audit(&self, keep: AuditKeep) -> Result<u64, Error> {
        Ok(self.0.store.prune_audit(keep, self.0.committer.context(Micros::now())).await?)
    }
}

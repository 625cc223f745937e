//! Operations: a walk over many jobs that is stored, and carried out without its caller.
//!
//! Who carries one out holds a claim and stores after each share how far it is. A process that ends leaves the claim
//! to run out; the next one continues with the share that was under way, at most 100 jobs. Those of them that were put
//! back are open and not found again, unless they have ended meanwhile; those that were stopped stay so. Counts may leave
//! them out.

use super::audit::asked;
use super::cancels::CancelSpec;
use super::put_back::{RedriveSpec, RetrySpec};
use super::walk::Walk;
use super::{App, Page, page, page_limit};
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::operation::{Claimed, Kind, OPEN_MAX, Operation, OperationProgress, State};
use crate::store::{Order, Owner};
use agentforge_message_id::OperationId;
use agentforge_proto::time::Micros;
use serde::Serialize;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Operations that one process carries out at once. More would only share the rate at which a database commits.
const RUNNING_MAX: usize = 4;
/// How often it is checked whether one waits.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a claim is valid; it is renewed long before.
const CLAIM_FOR: Duration = Duration::from_secs(30);
/// A pause is slept in parts, so that the claim is renewed and a cancel is noticed.
const NAP_MAX: Duration = Duration::from_secs(1);
/// A wait for a database or an outbox that gave no time of its own.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A caller who finds too many open is to wait so long.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(10);

fn operation_id(id: &str) -> Result<OperationId, Error> {
    id.parse().map_err(|e: agentforge_message_id::NameError| Error::field("id", e.to_string()))
}

impl App {
    /// Stores a redrive that is carried out without the caller.
    ///
    /// # Errors
    /// As [`App::redrive`] at once; `too_many_requests` when too many are open; `unavailable`.
    pub async fn start_redrive(&self, caller: &Caller, spec: RedriveSpec) -> Result<Operation, Error> {
        let checked = self.redrive_walk(caller, spec.clone()).map(drop);
        self.recorded(caller, "operation", None, checked).await?;
        self.start_operation(caller, Kind::Redrive, &spec).await
    }

    /// Stores a retry of many that is carried out without the caller.
    ///
    /// # Errors
    /// As [`App::retry_many`] at once; `too_many_requests` when too many are open; `unavailable`.
    pub async fn start_retry(&self, caller: &Caller, spec: RetrySpec) -> Result<Operation, Error> {
        let checked = if spec.dry_run {
            Err(Error::field("dry_run", "a dry run only counts: it is answered at once, not as an operation"))
        } else {
            self.retry_walk(caller, spec.clone()).map(drop)
        };
        self.recorded(caller, "operation", None, checked).await?;
        self.start_operation(caller, Kind::Retry, &spec).await
    }

    /// Stores a cancel of many that is carried out without the caller.
    ///
    /// # Errors
    /// As [`App::cancel_many`] at once; `too_many_requests` when too many are open; `unavailable`.
    pub async fn start_cancel(&self, caller: &Caller, spec: CancelSpec) -> Result<Operation, Error> {
        let checked = if spec.dry_run {
            Err(Error::field("dry_run", "a dry run only counts: it is answered at once, not as an operation"))
        } else {
            self.cancel_walk(caller, spec.clone()).map(drop)
        };
        self.recorded(caller, "operation", None, checked).await?;
        self.start_operation(caller, Kind::Cancel, &spec).await
    }

    async fn start_operation<S: Serialize + Sync>(
        &self,
        caller: &Caller,
        kind: Kind,
        spec: &S,
    ) -> Result<Operation, Error> {
        if self.is_scoped() {
            // It runs without its caller, and whether it may is judged by the scopes of the call.
            let message = "an operation is about the whole installation; without async, a token with scopes may do it";
            let refused = Err(Error::new(Code::PermissionDenied, message));
            return self.recorded(caller, "operation", None, refused).await;
        }
        let operation = Operation {
            id: OperationId::generate(),
            kind,
            state: State::Waiting,
            cancel_asked: false,
            created_at: Micros::now(),
            started_by: Some(caller.name().to_owned()),
            progress: OperationProgress::default(),
        };
        let spec = serde_json::to_value(spec).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        let entry = caller.entry().about("operation", Some(operation.id.to_string())).with(&asked(&spec));
        let order = Order::CreateOperation { operation: Box::new(operation.clone()), spec: spec.to_string() };
        if self.order(order, entry).await? > 0 {
            return Ok(operation);
        }
        let message = format!("{OPEN_MAX} operations are open, the most there may be; wait for one, or cancel one");
        Err(Error::new(Code::TooManyRequests, message).retry_after(FULL_RETRY_AFTER))
    }

    /// One operation.
    ///
    /// # Errors
    /// `invalid_argument`, `not_found`, `unavailable`.
    pub async fn operation(&self, id: &str) -> Result<Operation, Error> {
        let id = operation_id(id)?;
        self.0.store.operation(id).await?.ok_or_else(|| Error::not_found("operation", id))
    }

    /// Operations, newest first.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn operations(&self, limit: u32, cursor: Option<&str>) -> Result<Page<Operation>, Error> {
        let limit = page_limit(limit)?;
        let wrong = |_| Error::field("cursor", "cursor is not one that a listing gave; start without it");
        let before = cursor.filter(|c| !c.is_empty()).map(|c| operation_id(c).map_err(wrong)).transpose()?;
        Ok(page(self.0.store.operations(before, limit + 1).await?, limit, |o| o.id.to_string()))
    }

    /// Asks an operation to stop; who carries it out does so within seconds. One that has ended stays as it is.
    ///
    /// # Errors
    /// As [`App::operation`].
    pub async fn cancel_operation(&self, caller: &Caller, id: &str) -> Result<Operation, Error> {
        let known = self.recorded(caller, "operation", Some(id), self.operation(id).await).await?;
        let entry = caller.entry().about("operation", Some(known.id.to_string()));
        self.order(Order::CancelOperation(known.id), entry).await?;
        self.operation(id).await
    }

    fn resumed(&self, operation: &Operation, spec: &str) -> Result<Walk, Error> {
        let unreadable = |e: serde_json::Error| Error::new(Code::Internal, format!("it cannot be read: {e}"));
        let by = |name| Caller::of_operation(operation.started_by.as_deref(), name, operation.id);
        let mut walk = match operation.kind {
            Kind::Redrive => {
                self.redrive_walk(&by("RedriveDeadLetters"), serde_json::from_str(spec).map_err(unreadable)?)?
            }
            Kind::Retry => self.retry_walk(&by("RetryJobs"), serde_json::from_str(spec).map_err(unreadable)?)?,
            Kind::Cancel => self.cancel_walk(&by("CancelJobs"), serde_json::from_str(spec).map_err(unreadable)?)?,
        };
        let progress = &operation.progress;
        walk.resume(progress.position, progress.reasons.len());
        Ok(walk)
    }

    /// Carries one out until it ends, is cancelled, belongs to another process, or `stop` fires.
    async fn carry_out(&self, claimed: Claimed, owner: Owner, stop: CancellationToken) {
        let Claimed { mut operation, spec } = claimed;
        let id = operation.id;
        let mut walk = match self.resumed(&operation, &spec) {
            Ok(walk) => walk,
            Err(e) => {
                end(&mut operation, State::Failed, Some(e.message));
                let _ = self.0.store.save_operation(&operation, &owner, Micros(0)).await;
                return;
            }
        };
        if operation.progress.started_at.is_none() {
            operation.progress.started_at = Some(Micros::now());
            // It is only for people; without it the work is the same.
            operation.progress.total = walk.total().await.unwrap_or_default();
        }
        info!(operation = %id, kind = operation.kind.as_str(), put_back = operation.progress.put_back,
            cancelled = operation.progress.cancelled, "operation runs");
        let mut begun = Instant::now();
        let mut pause = Duration::ZERO;
        loop {
            if operation.cancel_asked {
                end(&mut operation, State::Cancelled, None);
            } else if !operation.state.is_final() && begun.elapsed() >= pause {
                (begun, pause) = (Instant::now(), self.one_share(&mut walk, &mut operation).await);
            }
            let until = if stop.is_cancelled() { Micros(0) } else { Micros::now().plus(CLAIM_FOR) };
            match self.0.store.save_operation(&operation, &owner, until).await {
                Ok(None) => return,
                Ok(Some(asked)) => {
                    operation.cancel_asked = asked;
                    if operation.state.is_final() {
                        info!(operation = %id, state = operation.state.as_str(), put_back = operation.progress.put_back,
                            cancelled = operation.progress.cancelled, skipped = operation.progress.skipped, error = operation.progress.error, "operation ended");
                        return;
                    }
                }
                Err(e) => {
                    warn!(operation = %id, error = &e as &dyn std::error::Error, "its progress was not stored; trying again");
                    (begun, pause) = (Instant::now(), pause.max(RETRY_INTERVAL));
                }
            }
            if stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(begun.elapsed()).min(NAP_MAX)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Takes one share on; how long it may last, or be waited for.
    async fn one_share(&self, walk: &mut Walk, operation: &mut Operation) -> Duration {
        let outcome = walk.one_share(walk.share()).await;
        let done = walk.take_progress();
        let progress = &mut operation.progress;
        progress.matched += done.matched;
        progress.put_back += done.put_back;
        progress.cancelled += done.cancelled;
        progress.skipped += done.skipped;
        progress.reasons.extend(done.reasons);
        progress.position = walk.position();
        progress.error = None;
        match outcome {
            Ok(Some(taken)) => walk.pace(taken),
            Ok(None) => {
                end(operation, State::Succeeded, None);
                Duration::ZERO
            }
            Err(e) if matches!(e.code, Code::Unavailable | Code::OutboxFull | Code::TooManyRequests) => {
                progress.error = Some(e.message);
                e.retry_after.unwrap_or(RETRY_INTERVAL)
            }
            Err(e) => {
                end(operation, State::Failed, Some(e.message));
                Duration::ZERO
            }
        }
    }
}

fn end(operation: &mut Operation, state: State, error: Option<String>) {
    operation.state = state;
    operation.progress.error = error;
    operation.progress.ended_at = Some(Micros::now());
}

/// Carries operations out, until `stop` fires; then they are left to the next process.
///
/// # Errors
/// Never; the type is the supervisor's.
pub(crate) async fn operations_loop(app: App, owner: Owner, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let mut running = JoinSet::new();
    while crate::reconcile::pause(&stop, CHECK_INTERVAL).await {
        while running.try_join_next().is_some() {}
        let Some(free) = RUNNING_MAX.checked_sub(running.len()).filter(|free| *free > 0) else { continue };
        let now = Micros::now();
        let limit = u32::try_from(free).unwrap_or(1);
        match app.0.store.claim_operations(&owner, now, now.plus(CLAIM_FOR), limit).await {
            Ok(claimed) => {
                for one in claimed {
                    let (app, owner, stop) = (app.clone(), owner.clone(), stop.clone());
                    running.spawn(async move { app.carry_out(one, owner, stop).await });
                }
            }
            Err(e) => warn!(error = &e as &dyn std::error::Error, "operations could not be checked; trying again"),
        }
    }
    while running.join_next().await.is_some() {}
    Ok(())
}

//! The board: what callers do with items, and what follows from it.

use super::item::{self, Fault, Item, NewItem, Patch, Step};
use super::metrics;
use super::settings::IntakeConfig;
use super::store::{Changed, Error, Store};
use super::submit::{Submit, SubmitError};
use agentforge_access::Principal;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use uuid::Uuid;

/// Why something was not done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such item.
    #[error("there is no such item")]
    Missing,
    /// A field breaks a rule.
    #[error(transparent)]
    Field(#[from] Fault),
    /// The item is in another state, or was changed meanwhile.
    #[error("{0}")]
    Conflict(String),
    /// The item is not the version that the caller saw.
    #[error("the item is at version {0}; read it again")]
    Stale(i64),
    /// The job was not taken.
    #[error(transparent)]
    Job(#[from] SubmitError),
    /// The store's.
    #[error(transparent)]
    Store(#[from] Error),
}

struct Inner {
    store: Store,
    config: IntakeConfig,
    jobs: Arc<dyn Submit>,
    events: Notify,
    counts: Notify,
}

/// The board. Clones share it.
#[derive(Clone)]
pub struct Intake(Arc<Inner>);

impl Intake {
    /// On a store whose schema is up to date.
    pub fn new(store: Store, config: IntakeConfig, jobs: Arc<dyn Submit>) -> Self {
        Self(Arc::new(Inner { store, config, jobs, events: Notify::new(), counts: Notify::new() }))
    }

    /// The items.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Waits for a change that was made here.
    pub async fn changed(&self) {
        self.0.events.notified().await;
    }

    /// The same, for what counts.
    pub async fn counted(&self) {
        self.0.counts.notified().await;
    }

    fn announce(&self) {
        self.0.events.notify_one();
        self.0.counts.notify_one();
    }

    /// Adds an item. With a key, the same caller's second try is the first one's item.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn create(&self, caller: &Principal, new: NewItem, key: Option<String>) -> Result<Item, Refusal> {
        let item = new.into_item(&caller.name, now())?;
        let (item, is_new) = self.0.store.create(item, key).await?;
        if is_new {
            metrics::INPUTS.inc(&[]);
            self.announce();
        }
        Ok(item)
    }

    /// Changes fields of an item, if it is still at `version`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn patch(&self, id: Uuid, version: Option<i64>, patch: Patch) -> Result<Item, Refusal> {
        self.change(id, move |item| at_version(version, &item).and_then(|()| Ok(patch.apply(item)?))).await
    }

    /// Takes a step that needs nothing else.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn step(&self, id: Uuid, version: Option<i64>, step: Step) -> Result<Item, Refusal> {
        self.change(id, move |item| {
            at_version(version, &item)?;
            let status = item::step(&item, step).map_err(Refusal::Conflict)?;
            Ok(Item { status, ..item })
        })
        .await
    }

    /// Changes an item as a client of the todo routes asks: text, and whether it is done.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn put(&self, id: Uuid, text: Option<String>, done: Option<bool>) -> Result<Item, Refusal> {
        self.change(id, move |item| {
            let step = done.map(|done| if done { Step::TodoDone } else { Step::TodoNotDone });
            let status = step.map_or(Ok(item.status), |step| item::step(&item, step)).map_err(Refusal::Conflict)?;
            let text = text.map(item::text).transpose()?.unwrap_or_else(|| item.text.clone());
            Ok(Item { status, text, ..item })
        })
        .await
    }

    /// Turns an item into a job. The job is submitted first, under a key of the item and its version: after a crash in
    /// between the same call leads to the same job.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn approve(&self, caller: &Principal, id: Uuid, version: Option<i64>) -> Result<Item, Refusal> {
        let item = self.0.store.item(id).await?.ok_or(Refusal::Missing)?;
        at_version(version, &item)?;
        item::step(&item, Step::Approve).map_err(Refusal::Conflict)?;
        let seen = item.version;
        let job = self.0.jobs.submit(caller, self.0.config.template.render(&item)).await?;
        // Whether it was this call that did it.
        let ours = Arc::new(AtomicBool::new(false));
        let noted = ours.clone();
        let approved = self
            .change(id, move |item| {
                // Somebody else approved the same version at the same time.
                if item.job_id == Some(job) {
                    return Ok(item);
                }
                at_version(Some(seen), &item)?;
                let status = item::step(&item, Step::Approve).map_err(Refusal::Conflict)?;
                noted.store(true, Ordering::Relaxed);
                Ok(Item { status, job_id: Some(job), ..item })
            })
            .await;
        match approved {
            Ok(approved) => {
                if ours.load(Ordering::Relaxed) {
                    metrics::EXPERIMENTS.inc(&[]);
                }
                Ok(approved)
            }
            Err(refusal @ (Refusal::Missing | Refusal::Stale(_) | Refusal::Conflict(_))) => {
                // It was rejected, changed or deleted while its job was submitted: the job is of something else.
                self.0.jobs.cancel(caller, job).await;
                Err(refusal)
            }
            Err(other) => Err(other),
        }
    }

    /// Deletes an item.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn delete(&self, id: Uuid) -> Result<(), Refusal> {
        if !self.0.store.delete(id, now()).await? {
            return Err(Refusal::Missing);
        }
        self.announce();
        Ok(())
    }

    async fn change(
        &self,
        id: Uuid,
        change: impl FnOnce(Item) -> Result<Item, Refusal> + Send + 'static,
    ) -> Result<Item, Refusal> {
        match self.0.store.change(id, now(), change).await? {
            Changed::Missing => Err(Refusal::Missing),
            Changed::Refused(refusal) => Err(refusal),
            Changed::Is(item) => {
                self.announce();
                Ok(*item)
            }
        }
    }
}

/// To the microsecond, as it is stored: what a change answers and what is read later are the same.
fn now() -> Timestamp {
    Timestamp::from_microsecond(Timestamp::now().as_microsecond()).expect("a time of the system's clock")
}

fn at_version(wanted: Option<i64>, item: &Item) -> Result<(), Refusal> {
    match wanted {
        Some(wanted) if wanted != item.version => Err(Refusal::Stale(item.version)),
        _ => Ok(()),
    }
}

//! Opening the database: the schema, its owner, what a dead process had claimed. Waits while it is unavailable.

use crate::app::{self, App};
use crate::metrics;
use crate::reconcile::pause;
use crate::store::{Error, Owner};
use agentforge_runtime::Gate;
use anyhow::Context;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two tries.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What is opened, and for whom.
pub struct Opening {
    /// The application with the store; callers are refused until it is open.
    pub app: App,
    /// This process, in claims.
    pub owner: Owner,
}

impl Opening {
    /// Tries until it is open. `false`: the stop came first.
    ///
    /// # Errors
    /// Faults that do not pass by waiting.
    pub async fn run(self, gate: &Gate, stop: &CancellationToken) -> Result<bool, anyhow::Error> {
        let place = self.app.database();
        gate.set(false, format!("{place}: opening"));
        let mut logged = String::new();
        loop {
            match self.open().await {
                Ok(()) => {
                    if !logged.is_empty() {
                        info!(place, "database available");
                    }
                    self.app.set_opening(app::Opening::Open);
                    gate.set(true, place);
                    return Ok(true);
                }
                Err(e) if e.is_retryable() => {
                    metrics::DB_ERRORS.inc(&[]);
                    let why = format!("{place}: {} (DATABASE_URL)", e.chain());
                    if logged != why {
                        warn!(why, "database unavailable; waiting");
                        logged.clone_from(&why);
                    }
                    self.app.set_opening(app::Opening::Away(format!("{place} is unavailable")));
                    gate.set(false, why);
                }
                Err(e) => {
                    return Err(anyhow::Error::from(e)).with_context(|| format!("cannot use the database, {place}"));
                }
            }
            if !pause(stop, RETRY_INTERVAL).await {
                return Ok(false);
            }
        }
    }

    async fn open(&self) -> Result<(), Error> {
        self.app.open_database(&self.owner).await
    }
}

//! Counting jobs by state, at most once at a time.

use super::App;
use super::counts::JobCounts;
use crate::error::Error;
use agentforge_proto::time::Micros;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::warn;

impl App {
    /// Jobs by state, at most [`COUNTS_AGE_MAX`](super::COUNTS_AGE_MAX) old.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn job_counts(&self) -> Result<JobCounts, Error> {
        match self.0.counts.last() {
            Some((fresh, true)) => return Ok(fresh),
            Some((aging, false)) => {
                self.count_meanwhile();
                return Ok(aging);
            }
            None => {}
        }
        let _turn = self.0.counts.turn.lock().await;
        match self.0.counts.last() {
            Some((counted, _)) => Ok(counted),
            None => self.count().await,
        }
    }

    /// Counts for later callers, unless someone does; ends by itself.
    fn count_meanwhile(&self) {
        let Ok(turn) = Arc::clone(&self.0.counts.turn).try_lock_owned() else { return };
        let app = self.clone();
        tokio::spawn(async move {
            if let Err(e) = app.count().await {
                warn!(error = &e as &dyn std::error::Error, "jobs could not be counted; earlier counts are given");
            }
            drop(turn);
        });
    }

    async fn count(&self) -> Result<JobCounts, Error> {
        let (begun, at) = (Instant::now(), Micros::now());
        let counts = JobCounts { of: self.0.store.state_counts().await?, at };
        self.0.counts.keep(begun, counts.clone());
        Ok(counts)
    }
}

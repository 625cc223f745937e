//! Stream and bucket of evidence: made sure of when the hub comes within reach, and looked at for as long as it
//! is. What somebody removes or changes there is put right without a reconnect.

use crate::{config::Config, delivery::publish::jetstream, progress::Progress};
use agentforge_jetstream::{Nats, topology::ensure_evidence};
use agentforge_runtime::Gate;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between two tries to make stream and bucket, and between two answers to the news that one is not there.
const AGAIN: Duration = Duration::from_secs(2);
/// Between two looks while all is as it should be, and while it cannot be made so: a few kilobytes each, on a
/// narrow link.
const LOOKS_EVERY: Duration = Duration::from_secs(30);

/// Makes sure of stream and bucket.
pub struct Ensurer {
    /// What they should be.
    pub config: Config,
    /// The way to the hub.
    pub nats: Nats,
    /// Shows how they are; it holds no readiness.
    pub gate: Gate,
    /// Tells when one is missed.
    pub progress: Arc<Progress>,
    /// Set when there is nothing more to be done about them.
    pub tells: watch::Sender<bool>,
}

impl Ensurer {
    /// Looks after them until the stop.
    ///
    /// # Errors
    /// Nobody tells of the link any more.
    pub async fn run(self, mut up: watch::Receiver<bool>, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let mut told = None;
        loop {
            tokio::select! {
                seen = up.wait_for(|up| *up) => { seen?; }
                () = stop.cancelled() => return Ok(()),
            }
            let began = Instant::now();
            let next = began + self.ensure(&mut told).await;
            tokio::select! {
                () = sleep_until(next) => {}
                // After a cut somebody may have changed the hub.
                () = async { drop(up.wait_for(|up| !*up).await) } => {}
                () = self.missed(began) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Waits for the news that a stream is not there, a little longer than since the last look.
    async fn missed(&self, looked: Instant) {
        self.progress.stream_missed.notified().await;
        self.gate.set(false, "no stream of the hub answers for evidence; it is made again");
        sleep_until(looked + AGAIN).await;
        // So that an answer that was lost on the way is no reason to hurry.
        sleep(Duration::from_millis(100)).await;
    }

    /// When to look again.
    async fn ensure(&self, told: &mut Option<String>) -> Duration {
        let js = jetstream(&self.nats, self.config.domain());
        let keep_limits = self.config.domain.is_some();
        let error = match ensure_evidence(&js, &self.config.evidence, keep_limits).await {
            Ok(report) => {
                if told.take().is_some() || !report.created.is_empty() || !report.updated.is_empty() {
                    tell_of_changes(&report.created, &report.updated);
                }
                self.gate.set(true, "as planned");
                self.tells.send_replace(true);
                return LOOKS_EVERY;
            }
            Err(error) => error,
        };
        // The same trouble is told once.
        let text = error.to_string();
        if told.as_ref() != Some(&text) {
            warn!(error = &error as &dyn std::error::Error, "stream and bucket of evidence are not as they should be");
            *told = Some(text.clone());
        }
        self.gate.set(false, text);
        if error.is_retryable() {
            return AGAIN;
        }
        // They are there, and a person has to decide about them; the hub says itself what it takes.
        self.tells.send_replace(true);
        LOOKS_EVERY
    }
}

fn tell_of_changes(created: &[String], updated: &[String]) {
    tracing::info!(
        created = created.join(","),
        updated = updated.join(","),
        "stream and bucket of evidence are as planned"
    );
}

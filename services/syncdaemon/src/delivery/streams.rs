//! Stream and bucket of evidence: made sure of when the hub comes within reach, and checked for as long as it
//! is. Where the connected server is the hub, what is removed or changed there is corrected without a reconnect. A site
//! makes nothing at its hub, which lets it see its own evidence only: it finds out whether both answer.

use crate::{config::Config, progress::Progress};
use agentforge_jetstream::{
    Nats,
    subjects::{BUCKET_EVIDENCE_BLOBS, STREAM_EVIDENCE, bucket_chunks, bucket_stream, evidence_chunks, evidence_site},
    topology::ensure_evidence,
};
use agentforge_ledger::hub::{self, jetstream};
use agentforge_runtime::Gate;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between two tries to make stream and bucket, and between two answers to the report that one is missing.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Between two checks while all is as it should be, and while it cannot be made so: a few kilobytes each, on a
/// narrow link.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// For the hub's answer to whether it has one of them.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// In the place of a content's hash, where there is no message.
const NO_CONTENT: &str = "none";

/// Makes sure of stream and bucket.
pub struct StreamKeeper {
    /// What they should be.
    pub config: Config,
    /// The client of the hub.
    pub nats: Nats,
    /// Shows how they are; it holds no readiness.
    pub gate: Gate,
    /// Signals when one is missed.
    pub progress: Arc<Progress>,
    /// Set when there is nothing more to be done about them.
    pub is_ready: watch::Sender<bool>,
}

impl StreamKeeper {
    /// Keeps them until the stop.
    ///
    /// # Errors
    /// The link is not reported any more.
    pub async fn run(self, mut up: watch::Receiver<bool>, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let mut reported = None;
        loop {
            tokio::select! {
                seen = up.wait_for(|up| *up) => { seen?; }
                () = stop.cancelled() => return Ok(()),
            }
            let began = Instant::now();
            let next = began + self.ensure(&mut reported).await;
            tokio::select! {
                () = sleep_until(next) => {}
                // After a cut the hub may have changed.
                () = async { drop(up.wait_for(|up| !*up).await) } => {}
                () = self.missed(began) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Waits for the report that a stream is missing, a little longer than since the last check.
    async fn missed(&self, checked: Instant) {
        self.progress.stream_missed.notified().await;
        self.gate.set(false, "no stream of the hub answers for evidence");
        sleep_until(checked + RETRY_INTERVAL).await;
        // So that an answer that was lost on the way is not a reason to hurry.
        sleep(Duration::from_millis(100)).await;
    }

    /// When to check again.
    async fn ensure(&self, reported: &mut Option<String>) -> Duration {
        if let Some(domain) = self.config.domain() {
            return self.look(domain, reported).await;
        }
        let js = jetstream(&self.nats, None);
        let error = match ensure_evidence(&js, &self.config.evidence, false, self.config.maker).await {
            Ok(report) => {
                if reported.take().is_some() || !report.created.is_empty() || !report.updated.is_empty() {
                    log_changes(&report.created, &report.updated);
                }
                self.gate.set(true, "as planned");
                self.is_ready.send_replace(true);
                return CHECK_INTERVAL;
            }
            Err(error) => error,
        };
        // The same problem is logged once.
        let text = error.to_string();
        if reported.as_ref() != Some(&text) {
            warn!(error = &error as &dyn std::error::Error, "stream and bucket of evidence are not as planned");
            *reported = Some(text.clone());
        }
        self.gate.set(false, text);
        if error.is_retryable() {
            return RETRY_INTERVAL;
        }
        // They exist, and a person has to decide about them; the hub says itself what it takes.
        self.is_ready.send_replace(true);
        CHECK_INTERVAL
    }

    /// Whether the hub behind a link has both: asked for messages that do not exist, each says so. Returns when to ask
    /// again.
    async fn look(&self, domain: &str, reported: &mut Option<String>) -> Duration {
        let subject = &self.config.subject;
        let chunks = evidence_chunks(evidence_site(subject).unwrap_or_default(), NO_CONTENT, None);
        let places = [
            (STREAM_EVIDENCE.to_owned(), format!("{subject}.{NO_CONTENT}")),
            (bucket_stream(BUCKET_EVIDENCE_BLOBS), bucket_chunks(BUCKET_EVIDENCE_BLOBS, &chunks)),
        ];
        for (stream, subject) in places {
            let answer = timeout(ANSWER_MAX, hub::last(&self.nats, Some(domain), &stream, &subject)).await;
            let Err(reason) = answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) else { continue };
            let text = format!("the hub does not answer for {stream}: {reason}");
            if reported.as_ref() != Some(&text) {
                warn!(stream, reason, "the hub's stream or bucket of evidence does not answer; the files stay");
                *reported = Some(text.clone());
            }
            self.gate.set(false, text);
            return RETRY_INTERVAL;
        }
        *reported = None;
        self.gate.set(true, "the hub has them");
        self.is_ready.send_replace(true);
        CHECK_INTERVAL
    }
}

fn log_changes(created: &[String], updated: &[String]) {
    tracing::info!(
        created = created.join(","),
        updated = updated.join(","),
        "stream and bucket of evidence are as planned"
    );
}

//! Keeps the served endpoints in step with the document of those that the API made.
//!
//! Each replica polls the document, so that a change through one of them takes effect in all. A document that was lost
//! with its bucket is written again from memory by the first replica that misses it. One that is not encrypted with the
//! first key is encrypted again: at the start, and later whenever another replica used another key.

use crate::registry::{Registry, managed::ManagedEndpoints};
use agentforge_runtime::{Gate, Heartbeat};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between reads of the document; a change through this replica is read at once.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How long a document that another replica encrypted with another key stays so. Longer than the replicas of a rollout
/// run next to each other, and at most one write per interval and replica where they do so forever. docs/howto/webhooks.md
/// has it: the old key is removed after it.
const ENCRYPT_AFTER: Duration = Duration::from_secs(10 * 60);

/// When this replica encrypts the document with its first key.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    /// It has not found or made it current yet: the keys were changed for this replica's start, so it is due at once.
    #[default]
    Starting,
    /// It was current when last read or written.
    Current,
    /// Another replica has used another key since then. A replica that is being replaced finds this too, when the new one
    /// encrypts; it must not answer at once.
    Overwritten { since: Instant },
}

impl Encryption {
    /// Takes note of the document as read; whether it is to be encrypted now.
    fn is_due(&mut self, is_current: bool, now: Instant) -> bool {
        *self = match *self {
            _ if is_current => Self::Current,
            Self::Current => Self::Overwritten { since: now },
            waiting => waiting,
        };
        match *self {
            Self::Starting => true,
            Self::Current => false,
            Self::Overwritten { since } => now.duration_since(since) >= ENCRYPT_AFTER,
        }
    }
}

/// Follows the document until the stop.
pub async fn follow(
    registry: Registry,
    gate: Gate,
    heartbeat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let context = registry.context().clone();
    let store = &context.managed;
    let (mut known, mut applied, mut reported) = (None::<ManagedEndpoints>, Vec::new(), Vec::new());
    let mut encryption = Encryption::default();
    loop {
        heartbeat.beat();
        let changed = store.changed();
        if context.nats.is_connected() && context.capabilities.borrow().is_some() {
            let read = store.document().await;
            match &read {
                Ok(_) => gate.set(true, "read"),
                Err(error) => gate.set(false, format!("the current ones are kept: {error}")),
            }
            match read {
                Ok(Some(document)) => {
                    if encryption.is_due(document.is_current, Instant::now()) {
                        match store.change(|_| Ok(())).await {
                            Ok(_) => {
                                encryption = Encryption::Current;
                                info!("encrypted the endpoints of the API with the first key");
                            }
                            Err(error) => {
                                warn!(%error, "the endpoints of the API are not encrypted with the first key yet");
                            }
                        }
                    }
                    known = Some(document.endpoints);
                }
                // The bucket was lost and recreated: what we know is restored, by the first replica to notice.
                Ok(None) => {
                    if let Some(managed) = known.as_ref().filter(|managed| !managed.is_empty()) {
                        warn!("the bucket lost the endpoints of the API; restoring them");
                        let _ = store.write(managed, 0).await;
                    }
                }
                Err(error) => warn!(%error, "the endpoints of the API cannot be read; keeping the current ones"),
            }
            // Even without a change: the overlap of a secret may be over.
            let (now, faults) = match &known {
                Some(managed) => managed.endpoints(&context.config.defaults, Timestamp::now()),
                None => (Vec::new(), Vec::new()),
            };
            if now != applied {
                registry.apply_managed(now.clone());
                applied = now;
            }
            if faults != reported {
                faults.iter().for_each(|problem| warn!(problem, "an endpoint of the API is left out"));
                reported = faults;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = changed => {}
            () = sleep(POLL_INTERVAL) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its first key, and the seconds in which it runs.
    struct Replica {
        key: u8,
        runs: std::ops::Range<u64>,
        encryption: Encryption,
    }

    fn replica(key: u8, runs: std::ops::Range<u64>) -> Replica {
        Replica { key, runs, encryption: Encryption::default() }
    }

    /// Runs them on one document, which the API changes at these seconds through a replica with that key. Returns the
    /// document's key, and when which key encrypted it.
    fn run(replicas: &mut [Replica], changes: &[(u64, u8)], seconds: u64) -> (u8, Vec<(u64, u8)>) {
        let (start, mut sealed_by, mut written) = (Instant::now(), 0, Vec::new());
        for second in 0..seconds {
            if let Some((_, key)) = changes.iter().find(|(at, _)| *at == second) {
                sealed_by = *key;
            }
            for replica in replicas.iter_mut().filter(|replica| replica.runs.contains(&second)) {
                let now = start + Duration::from_secs(second);
                if replica.encryption.is_due(sealed_by == replica.key, now) {
                    (sealed_by, replica.encryption) = (replica.key, Encryption::Current);
                    written.push((second, replica.key));
                }
            }
        }
        (sealed_by, written)
    }

    #[test]
    fn the_first_key_wins_however_replicas_of_a_rollout_overlap() {
        let interval = ENCRYPT_AFTER.as_secs();
        let (old, new) = (1, 2);
        let rollout = || [replica(old, 0..200), replica(old, 0..260), replica(new, 100..5000), replica(new, 160..5000)];
        let begun = vec![(0, old), (100, new)];
        assert_eq!(run(&mut rollout(), &[], 5000), (new, begun.clone()), "old replicas do not answer at once");

        // The last old replica takes a change after the last new one has started.
        let again = [begun.clone(), vec![(250 + interval, new)]].concat();
        assert_eq!(run(&mut rollout(), &[(250, old)], 5000), (new, again.clone()));
        assert_eq!(run(&mut rollout(), &[(250, old), (255, old)], 5000), (new, again), "a later change delays nothing");
        assert_eq!(run(&mut rollout(), &[(250, new)], 5000), (new, begun));
    }

    #[test]
    fn replicas_with_other_keys_write_at_most_once_per_interval_until_the_old_ones_end() {
        let interval = ENCRYPT_AFTER.as_secs();
        let mut replicas = [replica(1, 0..10 * interval), replica(2, 100..20 * interval)];
        let (sealed_by, written) = run(&mut replicas, &[], 20 * interval);
        assert_eq!(sealed_by, 2);
        assert!(written.len() <= 12, "{written:?}");
        assert!(written.last().unwrap().0 <= 11 * interval, "{written:?}");
    }

    #[test]
    fn a_failed_encryption_is_due_again() {
        let (mut encryption, start) = (Encryption::default(), Instant::now());
        assert!(encryption.is_due(false, start) && encryption.is_due(false, start + POLL_INTERVAL));
        assert!(!encryption.is_due(true, start), "another replica did it");
        assert!(!encryption.is_due(false, start));
        let later = start + ENCRYPT_AFTER;
        assert!(encryption.is_due(false, later) && encryption.is_due(false, later + POLL_INTERVAL));
    }
}

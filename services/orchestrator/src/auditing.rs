//! The loops of the audit log: what other services report is taken in, old entries are pruned, and the heads of the chains
//! are published as anchors.

use crate::app::App;
use crate::metrics;
use crate::reconcile::pause;
use crate::store::AuditKeep;
use agentforge_audit::{Entry, Event};
use agentforge_jetstream::consume::{Delivery, PullOptions, Puller};
use agentforge_jetstream::{Nats, subjects};
use agentforge_proto::time::Micros;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(3600);
/// After a start: late enough not to compete with it.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// Callers' commits go first.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
/// Reported entries held at once.
const IN_FLIGHT_MAX: usize = 256;
/// Entries that could not be stored come back after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Prunes, and then writes a checkpoint that names the heads of all chains: its event is an anchor.
///
/// # Errors
/// Never; the type is the supervisor's.
pub(crate) async fn keep_loop(
    app: App,
    (retention, entries): (Duration, u64),
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let mut wait = FIRST_AFTER;
    while pause(&stop, wait).await {
        wait = CHECKPOINT_EVERY;
        let entries = i64::try_from(entries).unwrap_or(i64::MAX);
        let keep = AuditKeep { since: Micros::now().minus(retention), entries };
        loop {
            match app.prune_audit(keep).await {
                Ok(0) => break,
                Ok(pruned) => info!(pruned, "old entries of the audit log are pruned"),
                Err(e) => {
                    warn!(error = &e as &dyn std::error::Error, "the audit log could not be pruned; trying again");
                    break;
                }
            }
            if !pause(&stop, PRUNE_PAUSE).await {
                return Ok(());
            }
        }
        match app.checkpoint_audit().await {
            Ok(head) => {
                info!(chain = head.chain, place = head.place, hash = %head.hash, "audit log: checkpoint written");
            }
            Err(e) => {
                warn!(error = &e as &dyn std::error::Error, "no checkpoint of the audit log; trying again");
                wait = FIRST_AFTER;
            }
        }
    }
    Ok(())
}

/// Takes in what other services report, once the consumer is known to be there, until `stop` fires.
///
/// # Errors
/// When the puller ends without a stop.
pub(crate) async fn intake_loop(
    app: App,
    nats: Nats,
    mut topology: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        is_ready = async { topology.wait_for(|ready| *ready).await.is_ok() } => if !is_ready {
            stop.cancelled().await;
            return Ok(());
        },
    }
    let durable = subjects::audit_durable(app.mission());
    let mut puller = Puller::start(nats, subjects::STREAM_EVENTS, durable, PullOptions::new("audit", IN_FLIGHT_MAX));
    puller.grant(IN_FLIGHT_MAX);
    loop {
        let first = tokio::select! {
            biased;
            delivery = puller.next() => delivery,
            () = stop.cancelled() => break,
        };
        let Some(first) = first else {
            if stop.is_cancelled() {
                break;
            }
            anyhow::bail!("the loop that takes audit entries in has ended");
        };
        let mut batch = vec![first];
        while batch.len() < IN_FLIGHT_MAX {
            let Some(delivery) = puller.try_next() else { break };
            batch.push(delivery);
        }
        let slots = batch.len();
        take_in(&app, batch).await;
        puller.grant(slots);
    }
    puller.stop();
    Ok(())
}

async fn take_in(app: &App, batch: Vec<Delivery>) {
    let (mut entries, mut held) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for delivery in batch {
        match reported(delivery.subject(), delivery.payload()) {
            Ok(entry) => {
                entries.push(entry);
                held.push(delivery);
            }
            Err(problem) => {
                metrics::AUDIT_TAKEN_IN.inc(&["invalid"]);
                warn!(
                    problem,
                    subject = delivery.subject(),
                    stream_seq = delivery.info().stream_seq,
                    "a message is not an audit entry; terminated"
                );
                let _ = delivery.term("not an audit entry").await;
            }
        }
    }
    let all = entries.len() as u64;
    if all == 0 {
        return;
    }
    match app.take_in_audit(entries).await {
        Ok(stored) => {
            metrics::AUDIT_TAKEN_IN.add(&["stored"], stored);
            metrics::AUDIT_TAKEN_IN.add(&["known"], all.saturating_sub(stored));
            for delivery in held {
                // One that is redelivered is known by its id.
                let _ = delivery.ack().await;
            }
        }
        Err(e) => {
            warn!(
                error = &e as &dyn std::error::Error,
                "reported audit entries could not be stored; redelivered later"
            );
            for delivery in held {
                let _ = delivery.nak(Some(AGAIN_AFTER)).await;
            }
        }
    }
}

/// The entry of a message. Which service reports is what the subject says, and who may publish there: a message's own
/// word for it counts for nothing.
fn reported(subject: &str, payload: &[u8]) -> Result<Entry, String> {
    let service = subject.split('.').nth(4).filter(|service| !service.is_empty());
    let service = service.ok_or("its subject names no service")?;
    let event: Event = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
    if event.data.entry.id.is_empty() {
        return Err("it has no id".into());
    }
    Ok(Entry { surface: service.to_owned(), ..event.data.entry }.bounded())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_says_who_reports() {
        let entry = Entry { surface: "rest".into(), ..Entry::own("EnableEndpoint", &serde_json::json!({}), Micros(1)) };
        let subject = agentforge_audit::subject("broadcaster", "dev", &entry.operation);
        let payload = Event::of(entry.clone(), "dev").to_json();
        assert_eq!(reported(&subject, &payload).unwrap(), Entry { surface: "broadcaster".into(), ..entry });
        assert!(subject.starts_with(subjects::AUDIT_REPORTED_FILTER.trim_end_matches('>')), "{subject}");
        for rubbish in [&b""[..], b"{}", b"[]", br#"{"data":{}}"#] {
            assert!(reported(&subject, rubbish).is_err());
        }
    }
}

//! Prints the life-cycle events of jobs: `agentforge-example-event-subscriber [COUNT]` ends after COUNT events.
//!
//! NATS_URL is the server. A durable consumer keeps the place between runs, so that no event is missed while this is not
//! running, as long as the stream keeps it (EVENTS_MAX_AGE). Delivery is at least once: an event has an `id`.
#![allow(clippy::print_stdout)]

use anyhow::{Context, anyhow};
use async_nats::jetstream::{self, AckKind, consumer::pull};
use futures_util::StreamExt;
use serde_json::Value;
use std::{env, time::Duration};

/// The name under which the server keeps the place. Replicas that share it share the events.
const CONSUMER: &str = "example-event-subscriber";
/// An event that is not acknowledged for this long is redelivered.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// What may be under way: the server sends no more before some are acknowledged.
const MAX_ACK_PENDING: i64 = 256;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let count = match env::args().nth(1) {
        Some(count) => count.parse().context("COUNT is a number")?,
        None => usize::MAX,
    };
    let url = env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let client = async_nats::connect(&url).await.with_context(|| format!("no NATS server at {url}"))?;
    let stream =
        jetstream::new(client.clone()).get_stream("events").await.context("the orchestrator creates this stream")?;
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        filter_subject: "agentforge.events.job.>".to_owned(),
        ack_wait: ACK_WAIT,
        max_ack_pending: MAX_ACK_PENDING,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;

    let mut messages = consumer.messages().await?.take(count);
    while let Some(message) = messages.next().await {
        let message = message?;
        match serde_json::from_slice::<Value>(&message.payload) {
            Ok(event) => {
                println!("{} {} {}", text(&event["time"]), text(&event["type"]), text(&event["subject"]));
                // After the effect, never before: an unacknowledged event is redelivered.
                message.ack().await.map_err(|e| anyhow!(e))?;
            }
            // It would be the same each time.
            Err(_) => message.ack_with(AckKind::Term).await.map_err(|e| anyhow!(e))?,
        }
    }
    // Acknowledgements are sent before the process ends.
    client.flush().await?;
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("–")
}

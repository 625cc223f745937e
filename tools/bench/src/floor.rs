//! The raw limit: the four hops of a job without the product. Publish with acks, pull with acks,
//! twice over, on streams like the product's, from one process against the same server.

use agentforge_jetstream::NatsConfig;
use agentforge_jetstream::consume::{PullOptions, Puller};
use agentforge_jetstream::publish::Publisher;
use agentforge_jetstream::{Nats, publish};
use agentforge_message_id::{Attempt, JobId, MsgId};
use agentforge_terminal::{Failure, Result};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::time::{Duration, Instant};

const STREAMS: [&str; 2] = ["bench_floor_a", "bench_floor_b"];
/// Size of a job message without its args, bytes.
const ENVELOPE_BYTES: usize = 260;
/// Messages under way.
const WINDOW: usize = 1_024;

/// Four-hop rounds a second.
pub async fn measure(nats_url: &str, count: u64, args_bytes: u32) -> Result<f64> {
    let failed = |what: &str, e: &dyn std::fmt::Display| Failure::new(format!("floor: {what}: {e}"));
    let config = NatsConfig::for_url(nats_url).map_err(|e| failed("connect", &e))?;
    let nats = Nats::connect(&config, "agentforge-bench").await.map_err(|e| failed("connect", &e))?;
    if !nats.wait_connected(Duration::from_secs(10)).await {
        return Err(Failure::new("floor: NATS cannot be reached"));
    }
    for name in STREAMS {
        let _ = nats.jetstream().delete_stream(name).await;
        let config = Config {
            name: name.into(),
            subjects: vec![format!("{name}.>")],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            duplicate_window: Duration::from_secs(120),
            max_bytes: 4 << 30,
            ..Config::default()
        };
        let stream = nats.jetstream().create_stream(config).await.map_err(|e| failed("create a stream", &e))?;
        let consumer =
            pull::Config { durable_name: Some("floor".into()), max_ack_pending: 4_096, ..pull::Config::default() };
        stream.create_consumer(consumer).await.map_err(|e| failed("create a consumer", &e))?;
    }
    let payload = Bytes::from(vec![b'x'; args_bytes as usize + ENVELOPE_BYTES]);
    let begun = Instant::now();
    for name in STREAMS {
        publish_all(&nats, name, count, &payload).await.map_err(|e| failed("publish", &e))?;
        pull_all(&nats, name, count).await?;
    }
    let took = begun.elapsed();
    for name in STREAMS {
        let _ = nats.jetstream().delete_stream(name).await;
    }
    let _ = nats.drain().await;
    Ok(count as f64 / took.as_secs_f64())
}

async fn publish_all(
    nats: &Nats,
    stream: &str,
    count: u64,
    payload: &Bytes,
) -> std::result::Result<(), publish::Error> {
    let publisher = Publisher::with_limits(nats.clone(), WINDOW, Duration::from_secs(10));
    let subject = async_nats::Subject::from(format!("{stream}.default"));
    let mut acks = stream::iter(0..count)
        .map(|_| {
            let (publisher, subject, payload) = (publisher.clone(), subject.clone(), payload.clone());
            async move {
                let id = MsgId::attempt(JobId::generate(), Attempt::FIRST);
                publisher.send(subject, id, HeaderMap::new(), payload).await?.await
            }
        })
        .buffer_unordered(WINDOW);
    while let Some(ack) = acks.next().await {
        ack?;
    }
    Ok(())
}

async fn pull_all(nats: &Nats, stream: &str, count: u64) -> Result {
    let options = PullOptions::new("bench", WINDOW);
    let mut puller = Puller::start(nats.clone(), stream, "floor", options);
    puller.grant(WINDOW);
    for n in 1..=count {
        let next = tokio::time::timeout(Duration::from_secs(30), puller.next()).await;
        let Ok(Some(delivery)) = next else {
            return Err(Failure::new(format!("floor: message {n} of {count} never came")));
        };
        if n == count {
            delivery
                .ack_confirmed(Duration::from_secs(10))
                .await
                .map_err(|e| Failure::new(format!("floor: ack: {e}")))?;
        } else {
            delivery.ack().await.map_err(|e| Failure::new(format!("floor: ack: {e}")))?;
            puller.grant(1);
        }
    }
    puller.stop();
    Ok(())
}

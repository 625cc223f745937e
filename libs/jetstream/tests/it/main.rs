//! The library against a real server: what its names promise, and what happens when things break.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod connection;
mod hub;
mod publishing;
mod pulling;
mod pulling_faults;
mod servers;
mod topology;

use agentforge_harness::{NatsOptions, NatsServer, eventually, require};
use agentforge_jetstream::{HeaderMap, Nats, NatsConfig, PullOptions, publish};
use agentforge_message_id::MsgId;
use async_nats::jetstream::{
    consumer::{self, AckPolicy, pull},
    stream::{self, DiscardPolicy, RetentionPolicy},
};
use std::time::Duration;

/// Far above what anything here takes, for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(30);
const STREAM: &str = "work";
const CONSUMER: &str = "worker";

/// A server and a connection to it.
struct Setup {
    server: NatsServer,
    nats: Nats,
}

impl Setup {
    async fn new() -> Option<Self> {
        Self::with(NatsOptions::default()).await
    }

    async fn with(options: NatsOptions) -> Option<Self> {
        require("nats-server")?;
        let server = NatsServer::start(options).await;
        let nats = connect(&server.url()).await;
        Some(Self { server, nats })
    }

    /// The work queue `work` on `work.>` and its consumer `worker`.
    async fn with_queue(ack_wait: Duration) -> Option<Self> {
        let setup = Self::new().await?;
        make_queue(&setup.nats, ack_wait).await;
        Some(setup)
    }
}

async fn connect(url: &str) -> Nats {
    let nats = Nats::connect(&NatsConfig::for_url(url).unwrap(), "test").await.unwrap();
    assert!(nats.wait_connected(SOON).await, "no connection to {url}");
    nats
}

fn queue() -> stream::Config {
    stream::Config {
        name: STREAM.into(),
        subjects: vec!["work.>".into()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        ..Default::default()
    }
}

async fn make_queue(nats: &Nats, ack_wait: Duration) {
    nats.jetstream().create_stream(queue()).await.unwrap();
    make_consumer(nats, ack_wait).await;
}

async fn make_consumer(nats: &Nats, ack_wait: Duration) {
    let config = pull::Config {
        durable_name: Some(CONSUMER.into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        max_ack_pending: 10_000,
        ..Default::default()
    };
    nats.jetstream().create_consumer_on_stream(config, STREAM).await.unwrap();
}

async fn info(nats: &Nats) -> consumer::Info {
    eventually(SOON, "the consumer's state is told", || async {
        let consumer = nats.jetstream().get_consumer_from_stream::<pull::Config, _, _>(CONSUMER, STREAM).await;
        consumer.map(|c| c.cached_info().clone()).map_err(|e| e.to_string())
    })
    .await
}

async fn stored(nats: &Nats) -> u64 {
    eventually(SOON, "the stream's state is told", || async {
        let stream = nats.jetstream().get_stream(STREAM).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(stream.cached_info().state.messages)
    })
    .await
}

/// Puts the numbers of `range` on the queue, each with its own id.
async fn put(nats: &Nats, range: std::ops::Range<u64>) {
    let publisher = agentforge_jetstream::Publisher::new(nats.clone());
    let mut acks = Vec::new();
    for n in range {
        let id = MsgId::outbox(&format!("n{n}"));
        acks.push(publisher.send("work.x", id, HeaderMap::new(), n.to_string().into()).await.unwrap());
    }
    for ack in acks {
        ack.await.unwrap();
    }
}

async fn put_one(nats: &Nats, key: &str) -> Result<agentforge_jetstream::Ack, publish::Error> {
    publish::publish(nats, "work.x", MsgId::outbox(key), HeaderMap::new(), key.to_owned().into()).await
}

/// Short requests and heartbeats, so that silence is noticed soon.
fn brisk(max_outstanding: usize) -> PullOptions {
    PullOptions {
        expires: Duration::from_secs(3),
        heartbeat: Duration::from_millis(500),
        ..PullOptions::new("test", max_outstanding)
    }
}

//! How fast publishing and pulling are. Run by hand: `cargo test --release … -- --ignored --nocapture speed`.

use super::{CONSUMER, SOON, STREAM, Setup, stored};
use agentforge_harness::eventually;
use agentforge_jetstream::{HeaderMap, PullOptions, Puller, Publisher};
use agentforge_message_id::MsgId;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::time::Instant;

const N: u64 = 100_000;

fn report(what: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {N} in {seconds:.2} s, {:.0} per second", N as f64 / seconds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn publish_then_pull() {
    let Some(Setup { nats, server: _server }) = Setup::with_queue(SOON).await else { return };
    let body = Bytes::from_static(&[b'x'; 256]);

    let start = Instant::now();
    let publisher = Publisher::new(nats.clone());
    let mut acks = Vec::new();
    for n in 0..N {
        acks.push(publisher.send("work.x", MsgId::outbox(&format!("a{n}")), HeaderMap::new(), body.clone()).await.unwrap());
    }
    for ack in acks {
        ack.await.unwrap();
    }
    report("publish, own pipeline", start);

    let start = Instant::now();
    let mut puller = Puller::start(nats.clone(), STREAM, CONSUMER, PullOptions::new("speed", 512));
    puller.grant(512);
    for _ in 0..N {
        let delivery = puller.next().await.unwrap();
        delivery.ack().await.unwrap();
        puller.grant(1);
    }
    report("pull and ack, one by one", start);
    eventually(SOON, "all acks are processed", || async {
        let left = stored(&nats).await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;

    let start = Instant::now();
    let js = async_nats::jetstream::ContextBuilder::new().max_ack_inflight(1024).build(nats.client().clone());
    stream::iter(0..N)
        .map(|n| {
            let (js, message) = (js.clone(), PublishMessage::build().message_id(format!("b{n}")).payload(body.clone()));
            async move { js.send_publish("work.x", message).await.unwrap().await.unwrap() }
        })
        .buffer_unordered(1024)
        .for_each(|_| async {})
        .await;
    report("publish, the client's pipeline", start);
}

//! Every stream, consumer and bucket that the broadcaster uses is purged, deleted or made in another way while events
//! come: what was not acknowledged is delivered, what an operator removed is gone, and nothing needs a restart.

use crate::{
    sink::{OK, Sink, status},
    stage::{Broadcaster, SOON, Stage},
};
use agentforge_harness::{eventually, require};
use async_nats::jetstream::{self, consumer, stream};
use serde_json::json;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

/// Within this everything is as it must be.
const REPAIRED_MAX: Duration = Duration::from_secs(60);
const DURABLE: &str = "broadcaster-dev-default";
const EVENTS: &str = "events";
const RETRIES: &str = "broadcaster_retries";
const DEAD_LETTERS: &str = "broadcaster_dlq";
const HISTORY: &str = "broadcaster_deliveries";
const BUCKET: &str = "KV_broadcaster_state";

/// Events without an end, each acknowledged by its stream before the next ones.
struct Load {
    published: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    async fn start(stage: &Stage) -> Self {
        let (published, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let js = jetstream::new(stage.client().await);
        let (count, over) = (published.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let n = count.load(Ordering::SeqCst);
                let sent = match js.publish("todos.events", crate::stage::todo(n).into()).await {
                    Ok(ack) => ack.await.is_ok(),
                    Err(_) => false,
                };
                // One that was refused is tried again under the same number.
                if sent {
                    count.store(n + 1, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { published, stop, task }
    }

    fn so_far(&self) -> usize {
        self.published.load(Ordering::SeqCst)
    }

    async fn more(&self, n: usize) {
        let wanted = self.so_far() + n;
        eventually(SOON, "events come", || async { self.so_far() >= wanted }).await;
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.published.load(Ordering::SeqCst)
    }
}

/// Numbers whose event ends in 7 are refused for good; the others fail once.
fn is_refused(n: usize) -> bool {
    n % 10 == 7
}

async fn receiver() -> Sink {
    Sink::start(|r| match r.json()["id"].as_str().unwrap_or_default().ends_with('7') {
        true => status(400),
        false if r.attempt < 2 => status(500),
        false => OK,
    })
    .await
}

/// Of these events each was delivered, or refused.
async fn all_arrive(sink: &Sink, numbers: std::ops::Range<usize>) {
    eventually(REPAIRED_MAX, "all that is published arrives", || async {
        let seen: HashSet<String> = sink
            .requests()
            .iter()
            .filter(|r| r.answer == OK || r.answer == status(400))
            .map(|r| r.json()["id"].as_str().unwrap().to_owned())
            .collect();
        let missing: Vec<usize> = numbers.clone().filter(|n| !seen.contains(&n.to_string())).collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    })
    .await;
}

/// The same process says that it is ready and live, and the endpoint delivers.
async fn is_well(broadcaster: &Broadcaster) {
    eventually(REPAIRED_MAX, "it is ready and live without a restart", || async {
        let (ready, live) = (broadcaster.get("/readyz").await, broadcaster.get("/healthz").await);
        let loops = ["streams", "sweep", "history", "managed-endpoints"];
        let all_beat = loops.iter().all(|name| live.1["loops"][name]["ok"] == true);
        let endpoint = broadcaster.endpoint("default").await;
        if ready.0 == 200 && live.0 == 200 && all_beat && endpoint["state"] == "active" {
            Ok(())
        } else {
            Err(format!("{ready:?} {live:?} {endpoint}"))
        }
    })
    .await;
}

async fn config(js: &jetstream::Context, name: &str) -> Option<stream::Config> {
    Some(js.get_stream(name).await.ok()?.cached_info().config.clone())
}

/// As the broadcaster plans it, in every field that it plans.
async fn is_as_planned(js: &jetstream::Context, planned: &stream::Config) {
    let fields = |c: &stream::Config| {
        let flags = (c.allow_message_schedules, c.allow_rollup, c.deny_delete, c.allow_direct);
        (c.subjects.clone(), c.discard, c.max_bytes, c.max_age, c.max_messages, c.max_messages_per_subject, flags)
    };
    eventually(REPAIRED_MAX, "it is as planned", || async {
        match config(js, &planned.name).await {
            Some(found) if fields(&found) == fields(planned) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
}

async fn start(stage: &Stage, sink: &Sink, paused: &Sink) -> Broadcaster {
    let url = sink.url();
    let envs = [
        ("WEBHOOK_URL", url.as_str()),
        ("WEBHOOK_FORMAT", "raw"),
        ("BROADCASTER_RETRY_SCHEDULE", "1s,1s,1s,1s,1s,1s"),
        ("BROADCASTER_CIRCUIT_FAILURES", "0"),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    let made = json!({ "name": "held", "url": paused.url(), "subjects": ["agentforge.events.x"] });
    assert_eq!(broadcaster.post("/v1/endpoints", "", &made.to_string()).await.0, 201);
    assert_eq!(broadcaster.post("/v1/endpoints/held/pause", "", "").await.0, 200);
    eventually(SOON, "it is paused", || async { broadcaster.endpoint("held").await["state"] == "paused" }).await;
    stage.publish_to("agentforge.events.x", 0..3).await;
    broadcaster
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_event_lives_in_is_purged_under_load_and_no_event_is_lost() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink, paused) = (Stage::new().await, receiver().await, Sink::start(|_| OK).await);
    let broadcaster = start(&stage, &sink, &paused).await;
    let (js, load) = (jetstream::new(stage.client().await), Load::start(&stage).await);
    load.more(50).await;
    eventually(SOON, "attempts and dead letters are written", || async {
        stage.messages(HISTORY).await > 0 && stage.messages(DEAD_LETTERS).await > 0
    })
    .await;
    for name in [DEAD_LETTERS, HISTORY, BUCKET] {
        js.get_stream(name).await.unwrap().purge().await.unwrap();
        load.more(30).await;
    }
    for name in [EVENTS, RETRIES] {
        js.get_stream(name).await.unwrap().delete_consumer(DURABLE).await.unwrap();
        load.more(30).await;
    }
    eventually(REPAIRED_MAX, "the bucket has its endpoint again, and that it is paused", || async {
        let bucket = js.get_key_value("broadcaster_state").await.map_err(|e| e.to_string())?;
        let (made, held) = (bucket.get("_made.dev").await, bucket.get("dev.held").await);
        match (made, held) {
            (Ok(Some(_)), Ok(Some(held))) if held.windows(6).any(|w| w == b"paused") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    is_well(&broadcaster).await;
    let before = (stage.messages(HISTORY).await, load.so_far());
    load.more(30).await;
    let published = load.end().await;
    all_arrive(&sink, 0..published).await;
    eventually(SOON, "attempts are written again", || async { stage.messages(HISTORY).await > before.0 }).await;
    let letters: HashSet<String> = eventually(SOON, "what was refused since is a dead letter", || async {
        let letters: HashSet<String> =
            broadcaster.dead_letters().await.iter().map(|l| l["subject"].to_string() + &l["seq"].to_string()).collect();
        let wanted = (before.1..published).filter(|n| is_refused(*n)).count();
        if letters.len() >= wanted { Ok(letters) } else { Err(letters.len()) }
    })
    .await;
    assert!(!letters.is_empty());
    // A pause that was lost with its bucket would have let these go.
    assert_eq!((broadcaster.endpoint("held").await["state"].as_str(), paused.count()), (Some("paused"), 0));
    assert_eq!(broadcaster.post("/v1/endpoints/held/resume", "", "").await.0, 200);
    eventually(SOON, "what waited goes out", || async { paused.delivered().len() == 3 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_events_live_in_is_purged_under_load_and_what_comes_after_is_delivered() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink, paused) = (Stage::new().await, receiver().await, Sink::start(|_| OK).await);
    let broadcaster = start(&stage, &sink, &paused).await;
    let (js, load) = (jetstream::new(stage.client().await), Load::start(&stage).await);
    load.more(50).await;
    for name in [RETRIES, EVENTS] {
        js.get_stream(name).await.unwrap().purge().await.unwrap();
        // What is taken out by an operator while it is on its way is gone; all later events are not.
        let after = load.so_far() + 1;
        load.more(40).await;
        all_arrive(&sink, after..after + 39).await;
        is_well(&broadcaster).await;
    }
    let published = load.end().await;
    all_arrive(&sink, published - 30..published).await;
    eventually(SOON, "nothing is left behind among the retries", || async { stage.messages(RETRIES).await == 0 }).await;
    eventually(SOON, "nothing waits", || async { broadcaster.endpoint("default").await["pending"] == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_in_another_way_under_load_is_put_right_and_no_later_event_is_lost() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink, paused) = (Stage::new().await, receiver().await, Sink::start(|_| OK).await);
    let broadcaster = start(&stage, &sink, &paused).await;
    let (js, load) = (jetstream::new(stage.client().await), Load::start(&stage).await);
    eventually(SOON, "attempts are written", || async { stage.messages(HISTORY).await > 0 }).await;
    for name in [RETRIES, DEAD_LETTERS, HISTORY, BUCKET] {
        let planned = config(&js, name).await.unwrap();
        js.delete_stream(name).await.unwrap();
        // What a tool makes that knows the names only.
        let theirs = stream::Config {
            name: name.into(),
            subjects: planned.subjects.clone(),
            retention: planned.retention,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(3600),
            allow_direct: false,
            max_messages_per_subject: if name == BUCKET { 5 } else { -1 },
            ..Default::default()
        };
        // The broadcaster may have been quicker.
        if js.create_stream(theirs.clone()).await.is_err() {
            let _ = js.delete_stream(name).await;
            let _ = js.create_stream(theirs).await;
        }
        is_as_planned(&js, &planned).await;
        let after = load.so_far() + 1;
        load.more(40).await;
        all_arrive(&sink, after..after + 39).await;
        is_well(&broadcaster).await;
    }
    assert_eq!((broadcaster.endpoint("held").await["state"].as_str(), paused.count()), (Some("paused"), 0));

    // One of another kind cannot be changed: it is named, and the others are made meanwhile.
    let planned = config(&js, DEAD_LETTERS).await.unwrap();
    js.delete_stream(DEAD_LETTERS).await.unwrap();
    let in_memory = stream::Config { storage: stream::StorageType::Memory, ..planned.clone() };
    while js.create_stream(in_memory.clone()).await.is_err() {
        let _ = js.delete_stream(DEAD_LETTERS).await;
    }
    js.delete_stream(BUCKET).await.unwrap();
    eventually(REPAIRED_MAX, "readiness names it, and the bucket is there", || async {
        let (code, body) = broadcaster.get("/readyz").await;
        let detail = body["checks"]["streams"]["detail"].as_str().unwrap_or_default().to_owned();
        let is_made = js.get_key_value("broadcaster_state").await.is_ok();
        if code == 503 && detail.contains(DEAD_LETTERS) && detail.contains("storage") && is_made {
            Ok(())
        } else {
            Err(format!("{code} {body} {is_made}"))
        }
    })
    .await;
    let after = load.so_far() + 1;
    load.more(30).await;
    all_arrive(&sink, after..after + 29).await;
    js.delete_stream(DEAD_LETTERS).await.unwrap();
    is_as_planned(&js, &planned).await;
    is_well(&broadcaster).await;
    let published = load.end().await;
    all_arrive(&sink, published - 30..published).await;
    let info: consumer::Info = js.get_stream(RETRIES).await.unwrap().consumer_info(DURABLE).await.unwrap();
    assert_eq!(info.config.max_deliver, -1);
}

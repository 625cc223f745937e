//! Secrets of webhooks are changed under load by the commands of docs/howto/rotate-secrets.md, with a receiver that refuses
//! what its secret did not sign: it refuses nothing, before, during and after.

use crate::{
    delivery::verify,
    sink::{OK, Request, Sink, status},
    stage::{Broadcaster, SECRET, SOON, Stage},
};
use agentforge_harness::{Runbook, cargo_bin, eventually, require};
use serde_json::json;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

const PAGE: &str = "docs/howto/rotate-secrets.md";

/// A receiver with one secret, and events that arrive at it all the while.
#[derive(Clone)]
struct Load {
    sink: Sink,
    secret: Arc<Mutex<String>>,
    published: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Load {
    async fn new() -> Self {
        let secret = Arc::new(Mutex::new(SECRET.to_owned()));
        let known = secret.clone();
        let sink = Sink::start(move |request| {
            let is_good = verify(&known.lock().unwrap(), request).is_ok();
            if is_good { OK } else { status(401) }
        })
        .await;
        Self { sink, secret, published: Arc::default(), stop: Arc::default() }
    }

    /// Publishes until the stop, apart from what the test does meanwhile.
    fn run(&self, stage: &Arc<Stage>) -> tokio::task::JoinHandle<()> {
        let (load, stage) = (self.clone(), stage.clone());
        tokio::spawn(async move {
            for n in 0.. {
                if load.stop.load(Ordering::Relaxed) {
                    return;
                }
                stage.publish(n..n + 1).await;
                load.published.store(n + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }

    /// Waits until this many further events have arrived; they.
    async fn more(&self, count: usize) -> Vec<Request> {
        let before = self.sink.count();
        eventually(SOON, "further events arrive", || async {
            let now = self.sink.count();
            if now >= before + count { Ok(()) } else { Err(now) }
        })
        .await;
        self.sink.requests().split_off(before)
    }

    /// The receiver changes to this secret.
    fn change(&self, secret: &str) {
        secret.clone_into(&mut self.secret.lock().unwrap());
    }

    /// What only the old secret signed is refused by the receiver, and no event was.
    async fn check(&self, replicas: &[&Broadcaster]) {
        let first = self.sink.requests().remove(0);
        eventually(SOON, "every event has arrived", || async {
            let (arrived, published) = (self.sink.delivered().len(), self.published.load(Ordering::Relaxed));
            if arrived >= published { Ok(()) } else { Err(format!("{arrived} of {published}")) }
        })
        .await;
        let refused = self.sink.requests().iter().filter(|request| request.answer != OK).count();
        assert_eq!(refused, 0, "of {}", self.sink.count());
        for replica in replicas {
            assert_eq!(replica.dead_letters().await, Vec::<serde_json::Value>::new());
        }
        let secret = self.secret.lock().unwrap();
        assert!(verify(SECRET, &first).is_ok() && verify(&secret, &first).is_err(), "the receiver refuses it now");
    }
}

/// Whether the old and the new secret signed each of the requests.
fn signed(requests: &[Request], new: &str) -> Vec<(bool, bool)> {
    let mut all: Vec<_> = requests.iter().map(|r| (verify(SECRET, r).is_ok(), verify(new, r).is_ok())).collect();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_webhooks_is_changed_under_load() {
    let Some(()) = require("nats-server") else { return };
    let (stage, load) = (Arc::new(Stage::new().await), Load::new().await);
    let mut page = Runbook::open(PAGE, "## Webhooks of the settings");
    let mounted = page.secret("broadcaster-secret", &[("WEBHOOK_URL", &load.sink.url()), ("WEBHOOK_SECRET", SECRET)]);
    let file = |key: &str| mounted.join(key).display().to_string();
    let (url, secret) = (file("WEBHOOK_URL"), file("WEBHOOK_SECRET"));
    let envs = [("WEBHOOK_URL_FILE", url.as_str()), ("WEBHOOK_SECRET_FILE", secret.as_str())];
    let replicas = [&stage.broadcaster(&envs).await, &stage.broadcaster(&envs).await];
    let applied = async |times: f64| {
        for replica in replicas {
            eventually(SOON, "the change is taken up", || async {
                let found = replica.metric("broadcaster_endpoint_reloads_total{outcome=\"applied\"}").await;
                if found >= times { Ok(()) } else { Err(found) }
            })
            .await;
            replica.active().await;
        }
    };
    let publishing = load.run(&stage);
    assert_eq!(signed(&load.more(20).await, SECRET), [(true, true)]);
    page.step();
    let new = std::fs::read_to_string(format!("{}/new", page.get("FOLDER"))).unwrap();
    // 1. Both sign; then the receiver changes.
    page.step();
    applied(1.0).await;
    load.more(20).await;
    assert_eq!(signed(&load.more(20).await, &new), [(true, true)], "both sign");
    load.change(&new);
    load.more(20).await;
    // 2. The new one signs.
    page.step();
    applied(2.0).await;
    load.more(20).await;
    assert_eq!(signed(&load.more(20).await, &new), [(false, true)], "only the new one signs");
    load.stop.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    load.check(&replicas).await;
    assert_eq!(page.left(), 0, "every command of the page was run");
    for replica in replicas {
        let log = replica.proc.full_log();
        assert!(!log.contains(SECRET) && !log.contains(&new) && !log.contains("/hook"), "no secret is logged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_the_api_is_changed_under_load() {
    let Some(()) = require("nats-server") else { return };
    assert!(cargo_bin("agentforge").is_file());
    let (stage, load) = (Arc::new(Stage::new().await), Load::new().await);
    let replicas = [&stage.broadcaster(&[]).await, &stage.broadcaster(&[]).await];
    let wanted = json!({ "name": "orders", "url": load.sink.url(), "secret": SECRET }).to_string();
    assert_eq!(replicas[0].post("/v1/endpoints", "", &wanted).await.0, 201);
    for replica in replicas {
        eventually(SOON, "it delivers", || async { replica.endpoint("orders").await["state"] == "active" }).await;
    }
    let mut page = Runbook::open(PAGE, "## Webhooks of the API");
    page.step();
    for (name, value) in [("BROADCASTER", replicas[0].http.as_str()), ("ENDPOINT", "orders"), ("OVERLAP", "30s")] {
        page.set(name, value);
    }
    let publishing = load.run(&stage);
    load.more(20).await;
    let told = page.step();
    let new = told.split_whitespace().find(|word| word.starts_with("whsec_")).expect("the new secret").to_owned();
    for (wanted, what) in [([(true, true)], "both sign"), ([(false, true)], "only the new one signs")] {
        eventually(SOON, what, || async {
            let last = signed(&load.more(20).await, &new);
            if last == wanted { Ok(()) } else { Err(last) }
        })
        .await;
        // The receiver changes while both sign.
        load.change(&new);
    }
    load.stop.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    load.check(&replicas).await;
    assert_eq!(page.left(), 0, "every command of the page was run");
}

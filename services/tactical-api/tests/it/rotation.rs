//! The secret of links is changed under load by the commands of docs/howto/rotate-secrets.md: no link is refused within
//! its life, and what the old secret signed is refused afterwards.

use crate::{
    evidence::{deliver, evidence_streams, sign},
    support::{Api, SOON, Sse, World, request},
};
use agentforge_harness::{Runbook, eventually, require};
use serde_json::json;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const OLD: &str = "the-secret-that-links-have-now";
/// How long links last here, seconds; the page waits for it.
const TTL: i64 = 10;
/// A link that has less left may end on its way.
const MARGIN: i64 = 3;

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// When a link ends.
fn expiry(link: &str) -> i64 {
    link.rsplit('.').nth(1).unwrap().parse().unwrap()
}

/// Links that were given out and how they were answered.
#[derive(Default)]
struct Seen {
    links: VecDeque<String>,
    opened: usize,
    refused: Vec<String>,
}

/// Reads the picture at one replica and opens its links at both: the newest, and an old one that has to be good still.
async fn reader(seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>, at: String, other: String) {
    let mut sse = Sse::open(&at, "/events/stream", &[]).await;
    while let Some(got) = sse.next().await {
        let Some(link) = got.data["properties"]["evidence_link"].as_str() else { continue };
        let oldest = {
            let mut seen = seen.lock().unwrap();
            seen.links.push_back(link.to_owned());
            while seen.links.front().is_some_and(|link| expiry(link) < now() + MARGIN) {
                seen.links.pop_front();
            }
            seen.links.front().cloned()
        };
        for link in oldest.iter().map(String::as_str).chain([link]) {
            for address in [&at, &other] {
                let (status, _, body) = request(address, "GET", link, &[], "").await;
                let mut seen = seen.lock().unwrap();
                seen.opened += 1;
                if status != 200 {
                    seen.refused.push(format!("{status} {}", String::from_utf8_lossy(&body)));
                }
            }
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
    panic!("the stream ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_links_is_changed_under_load() {
    let Some(()) = require("nats-server") else { return };
    let mut page = Runbook::open("docs/howto/rotate-secrets.md", "## Links to evidence");
    let mounted = page.secret("tactical-api-secret", &[("EVIDENCE_SIGNING_SECRET", OLD), ("TACTICAL_READ_TOKENS", "")]);
    let (file, ttl) = (mounted.join("EVIDENCE_SIGNING_SECRET"), TTL.to_string());
    let settings = [("EVIDENCE_SIGNING_SECRET_FILE", file.to_str().unwrap()), ("EVIDENCE_SIGNING_TTL", ttl.as_str())];
    let world = World::start(&settings).await;
    let second = Api::start(&world.nats.url(), &settings).await;
    let replicas = [&world.api, &second];
    evidence_streams(&world).await;
    let id = deliver(&world, b"evidence", "a.txt", None).await;

    let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
    let (bus, evidence_id) = (world.bus().await, id.clone());
    let states = tokio::spawn(async move {
        for n in 0_u32.. {
            let body = json!({"title": "t", "coordinates": [1, 2], "evidence_id": evidence_id});
            bus.publish(&format!("tactical.markers.pier-7.m{}", n % 50), &body).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut load = Vec::new();
    for (at, other) in [(&world.api, &second), (&second, &world.api)] {
        let (at, other) = (at.address().to_owned(), other.address().to_owned());
        load.push(tokio::spawn(reader(seen.clone(), stop.clone(), at, other)));
    }
    let more = async || {
        let goal = seen.lock().unwrap().opened + 40;
        eventually(SOON, "more links are opened", || async {
            let opened = seen.lock().unwrap().opened;
            if opened >= goal { Ok(()) } else { Err(opened) }
        })
        .await;
    };
    let newest = || seen.lock().unwrap().links.back().cloned().unwrap_or_default();
    let is_by = |secret: &str, link: &str| sign(secret, &id, expiry(link)) == link;
    let applied = async |times: f64| {
        for replica in replicas {
            replica.until_metric("tactical_evidence_secret_reloads_total{outcome=\"applied\"}", times).await;
        }
    };
    more().await;

    page.step();
    let new = std::fs::read_to_string(format!("{}/new", page.get("FOLDER"))).unwrap();
    // 1. Both are accepted, the old one signs.
    page.step();
    applied(1.0).await;
    for replica in replicas {
        replica.until_metric("tactical_evidence_secrets", 2.0).await;
    }
    more().await;
    assert!(is_by(OLD, &newest()), "the old one signs");
    // 2. The new one signs. Links of the old one are opened until their end.
    page.step();
    applied(2.0).await;
    eventually(SOON, "links are signed with the new secret", || async { is_by(&new, &newest()) }).await;
    more().await;
    assert!(is_by(&new, &newest()), "from then on");
    let end = now() + TTL;
    eventually(SOON, "the last link of the old secret has ended", || async {
        let of_old = seen.lock().unwrap().links.iter().any(|link| is_by(OLD, link));
        now() > end && !of_old
    })
    .await;
    let of_old = sign(OLD, &id, now() + TTL);
    assert_eq!(request(second.address(), "GET", &of_old, &[], "").await.0, 200, "as long as it is listed");
    // 3. What the old one signs is refused from now on.
    page.step();
    applied(3.0).await;
    let late = sign(OLD, &id, now() + TTL);
    for replica in replicas {
        let (status, _, body) = request(replica.address(), "GET", &late, &[], "").await;
        assert_eq!((status, String::from_utf8_lossy(&body).contains("link_invalid")), (403, true));
        assert_eq!(request(replica.address(), "GET", &sign(&new, &id, now() + TTL), &[], "").await.0, 200);
        replica.until_metric("tactical_evidence_secrets", 1.0).await;
    }
    more().await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    states.abort();
    let seen = seen.lock().unwrap();
    assert!(seen.refused.is_empty(), "{} of {}: {:?}", seen.refused.len(), seen.opened, seen.refused);
    assert_eq!(page.left(), 0, "every command of the page was run");
    for replica in replicas {
        let log = replica.proc.full_log();
        assert!(!log.contains(OLD) && !log.contains(&new), "no secret is logged");
    }
}

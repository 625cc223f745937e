//! Stream and bucket at the hub are removed, changed and emptied while everybody stays connected.

use crate::site::{Hub, SITE, SOON, Site, Stream, client, evidence_at, header};
use agentforge_harness::{EdgeSite, NatsOptions, eventually, require};
use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy},
};
use std::time::Duration;

/// What must be found without a reconnect is found within this time, and some more on a busy machine.
const FOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_and_a_bucket_that_vanish_are_made_again_and_delivery_goes_on() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::with(NatsOptions::default().extra("max_payload: 131072")).await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    let js = hub.nats.jetstream();
    site.put("before", "one");
    site.until_drained().await;
    js.delete_stream("edge_evidence").await.unwrap();
    site.put("after", "two");
    eventually(FOUND, "it is delivered", || async { site.files().is_empty() }).await;
    assert_eq!(hub.stream().count().await, 1);
    eventually(SOON, "readiness says so", || async {
        daemon.ready().await.1["checks"]["stream"]["detail"] == "as planned"
    })
    .await;

    site.put("large-before", vec![1u8; 400 << 10]);
    site.until_drained().await;
    js.delete_stream("OBJ_edge_evidence_blobs").await.unwrap();
    site.put("large-after", vec![2u8; 400 << 10]);
    eventually(FOUND, "the large one is delivered", || async { site.files().is_empty() }).await;
    let blobs = Stream { js, name: "OBJ_edge_evidence_blobs" };
    assert!(blobs.count().await >= 2, "its chunks");
    // Without sending: only the bucket, found by a periodic check.
    js.delete_stream("OBJ_edge_evidence_blobs").await.unwrap();
    eventually(FOUND, "it is there again", || async { js.get_stream("OBJ_edge_evidence_blobs").await.is_ok() }).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vanishes_at_the_hub_of_a_site_is_awaited_and_nothing_is_lost() {
    let Some(()) = require("nats-server") else { return };
    let (edge, site) = (EdgeSite::start(SITE).await, Site::new());
    evidence_at(&edge.hub.url()).await;
    let daemon = site.daemon(&edge.leaf.url(), &[("SYNC_JS_DOMAIN", "hub")]).await;
    site.put("before", "one");
    site.until_drained().await;
    let hub = client(&edge.hub.url()).await;
    hub.jetstream().delete_stream("edge_evidence").await.unwrap();
    site.put("after", "two");
    eventually(FOUND, "it is held", || async { daemon.metric("replay_held", &["unavailable"]).await == Some(1.0) })
        .await;
    assert!(hub.jetstream().get_stream("edge_evidence").await.is_err(), "a site made it");
    evidence_at(&edge.hub.url()).await;
    eventually(FOUND, "it is delivered", || async { site.files().is_empty() }).await;
    // Other names cross the link as contents do.
    site.put("again", "two");
    site.until_drained().await;
    let stream = Stream { js: hub.jetstream(), name: "edge_evidence" };
    let mut names: Vec<_> = stream.messages().await.iter().map(|m| header(m, "Agentforge-File")).collect();
    names.sort();
    assert_eq!(names, ["after", "again"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_made_with_other_settings_is_put_right_or_told() {
    let Some(()) = require("nats-server") else { return };
    let (hub, site) = (Hub::start().await, Site::new());
    let daemon = site.daemon(&hub.url(), &[]).await;
    let js = hub.nats.jetstream();
    site.put("before", "one");
    site.until_drained().await;
    // Somebody's idea of it, which would drop old evidence.
    let other = Config {
        name: "edge_evidence".into(),
        subjects: vec!["edge.evidence.>".into()],
        discard: DiscardPolicy::Old,
        max_messages: 5,
        ..Default::default()
    };
    replace(js, other).await;
    eventually(FOUND, "the promise is enforced", || async {
        let stream = js.get_stream("edge_evidence").await.map_err(|e| e.to_string())?;
        let config = &stream.cached_info().config;
        if config.discard_new_per_subject && config.max_messages_per_subject == 1 {
            Ok(())
        } else {
            Err(format!("{config:?}"))
        }
    })
    .await;
    // One that cannot be corrected is reported, for as long as it exists.
    let unfit = Config {
        name: "edge_evidence".into(),
        subjects: vec!["edge.evidence.>".into()],
        storage: async_nats::jetstream::stream::StorageType::Memory,
        ..Default::default()
    };
    replace(js, unfit).await;
    eventually(FOUND, "it is told", || async {
        let (code, body) = daemon.ready().await;
        let check = body["checks"]["stream"].clone();
        if code == 200 && check["ok"] == false && check["detail"].to_string().contains("storage") {
            Ok(())
        } else {
            Err(check)
        }
    })
    .await;
    js.delete_stream("edge_evidence").await.unwrap();
    site.put("after", "two");
    eventually(FOUND, "it is delivered", || async { site.files().is_empty() }).await;
    daemon.stop().await;
}

/// Puts another stream in the place of one. The daemon may be faster, and is overtaken at the next try.
async fn replace(js: &jetstream::Context, config: Config) {
    eventually(SOON, "it is in place", || async {
        let _ = js.delete_stream(&config.name).await;
        js.create_stream(config.clone()).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

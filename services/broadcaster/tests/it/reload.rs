//! endpoints.toml changes while events flow.

use crate::{
    sink::{OK, Sink},
    stage::{SOON, Stage, endpoint},
};
use agentforge_harness::{eventually, require};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_effect_without_a_restart_and_a_broken_file_keeps_the_old_one_and_says_why() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let (a, b, c) = (Sink::start(|_| OK).await, Sink::start(|_| OK).await, Sink::start(|_| OK).await);
    let file = stage.endpoints(&[endpoint("a", &a.url(), ""), endpoint("b", &b.url(), "")].concat());
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("BROADCASTER_RELOAD_INTERVAL", "100ms")];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..10).await;
    eventually(SOON, "both have theirs", || async { a.delivered().len() == 10 && b.delivered().len() == 10 }).await;

    // b moves, a goes, c comes.
    stage.endpoints(&[endpoint("b", &c.url(), "format = \"raw\""), endpoint("c", &c.url(), "")].concat());
    eventually(SOON, "the change is taken up", || async {
        let names: Vec<_> =
            broadcaster.endpoints().await.iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect();
        if names == ["b", "c"] { Ok(()) } else { Err(names) }
    })
    .await;
    broadcaster.active().await;
    stage.publish(10..20).await;
    eventually(SOON, "the new place has them in both forms", || async { c.count() == 20 }).await;
    assert_eq!((a.count(), b.count()), (10, 10), "the old places get nothing more");

    for (broken, why) in [
        ("", "is empty"),
        ("[[endpoint]\n", "no TOML"),
        ("[[endpoint]]\nname = \"b\"\nurl = \"nothing\"\n", "endpoint b: url is no http or https URL"),
    ] {
        stage.endpoints(broken);
        eventually(SOON, "it says why", || async {
            let check = broadcaster.get("/readyz").await.1["checks"]["endpoints-file"].clone();
            let told = check["detail"].as_str().unwrap_or_default().contains(why);
            if told && check["ok"] == false { Ok(()) } else { Err(check) }
        })
        .await;
    }
    assert_eq!(broadcaster.get("/readyz").await.0, 200, "it goes on");
    stage.publish(20..30).await;
    eventually(SOON, "the old endpoints go on", || async { c.count() == 40 }).await;
    assert!(broadcaster.metric("broadcaster_endpoint_reloads_total{outcome=\"refused\"}").await >= 2.0);

    // What was published while an endpoint was not declared waits for it: its consumer stays.
    stage.endpoints(&endpoint("a", &a.url(), ""));
    eventually(SOON, "a is back with what it missed", || async { a.delivered().len() == 30 }).await;
}

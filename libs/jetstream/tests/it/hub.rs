//! Whether the hub of a site answers, reported over a link that fails in every way.

use super::{SOON, connect};
use agentforge_config::Reader;
use agentforge_harness::{EdgeSite, NatsOptions, NatsServer, require};
use agentforge_jetstream::{HubConfig, HubLink};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// From one question to the next, and for the answer that does not come.
const NOTICED: Duration = Duration::from_secs(12);

fn hub(domain: &str) -> HubConfig {
    let source = BTreeMap::from([("EDGE_HUB_DOMAIN".to_owned(), domain.to_owned())]);
    HubConfig::read(&mut Reader::new(&source))
}

async fn becomes(up: &mut watch::Receiver<bool>, wanted: bool) {
    assert!(timeout(SOON, up.wait_for(|is| *is == wanted)).await.is_ok(), "never {wanted}");
}

#[tokio::test]
async fn a_hub_that_is_cut_off_or_silent_or_gone_is_down_and_comes_back() {
    let Some(()) = require("nats-server") else { return };
    let mut site = EdgeSite::start_cut_off("site-a").await;
    let nats = connect(&site.leaf.url()).await;
    let link = HubLink::start(nats.clone(), &hub("hub"));
    let mut up = link.up();
    assert!(!*up.borrow_and_update(), "down until the first answer");
    site.link.restore();
    becomes(&mut up, true).await;

    let began = Instant::now();
    site.link.blackhole();
    becomes(&mut up, false).await;
    assert!(began.elapsed() < NOTICED, "a silent link was noticed after {:?}", began.elapsed());
    site.link.restore();
    becomes(&mut up, true).await;

    site.hub.kill9();
    becomes(&mut up, false).await;
    assert!(nats.is_connected(), "the site's own server is there");
    site.hub.restart().await;
    becomes(&mut up, true).await;

    // Without its own server a site knows at once that nothing goes.
    let began = Instant::now();
    site.leaf.kill9();
    becomes(&mut up, false).await;
    assert!(began.elapsed() < NOTICED / 2, "{:?}", began.elapsed());
    site.leaf.restart().await;
    becomes(&mut up, true).await;
}

#[tokio::test]
async fn another_domain_and_a_server_without_jetstream_are_no_hub() {
    let Some(()) = require("nats-server") else { return };
    let site = EdgeSite::start("site-a").await;
    let nats = connect(&site.leaf.url()).await;
    let (right, wrong) = (HubLink::start(nats.clone(), &hub("hub")), HubLink::start(nats, &hub("elsewhere")));
    let plain = NatsServer::start(NatsOptions { without_jetstream: true, ..NatsOptions::default() }).await;
    let bare = HubLink::start(connect(&plain.url()).await, &HubConfig::default());
    becomes(&mut right.up(), true).await;
    // Both were asked as long ago as the one that answered.
    for link in [wrong, bare] {
        assert!(timeout(Duration::from_secs(3), link.up().wait_for(|up| *up)).await.is_err());
    }
}

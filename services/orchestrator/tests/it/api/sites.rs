//! The links of sites, as callers of a hub read them.

use super::server::{DEADLINE, Server};
use agentforge_harness::{NatsOptions, NatsServer, eventually, require};
use serde_json::Value;

#[tokio::test]
async fn a_hub_shows_when_it_heard_its_sites_and_its_own_link() {
    let Some(()) = require("nats-server") else { return };
    let nats = NatsServer::start(NatsOptions::default()).await;
    let server = Server::start(&[("NATS_URL", &nats.url())]).await;
    let site = async_nats::connect(nats.url()).await.unwrap();
    let links = eventually(DEADLINE, "a beat is heard and the own link is up", async || {
        // The hub may not listen yet when it is sent.
        site.publish("edge.site.pier-7.seen", "".into()).await.unwrap();
        site.publish("edge.site.a.b.seen", "".into()).await.unwrap();
        site.flush().await.unwrap();
        let list: Value = server.get("/v1/sites").await.json().await.map_err(|e| e.to_string())?;
        let up = list["sites"].as_array().unwrap().iter().filter(|site| site["up"] == true).count();
        if up == 2 { Ok(list) } else { Err(list.to_string()) }
    })
    .await;
    let [own, heard] = &links["sites"].as_array().unwrap()[..] else { panic!("{links}") };
    assert_eq!((&own["own"], &heard["own"], &heard["site"]), (&true.into(), &false.into(), &"pier-7".into()));
    assert_eq!(links["reach_seconds"], 86_400);
    for link in [own, heard] {
        let last = link["spans"].as_array().unwrap().last().unwrap();
        assert!(last["to"].is_null() && last["from"].as_str() >= link["known_since"].as_str(), "{link}");
        assert!(link["seen_at"].as_str() <= links["at"].as_str(), "{links}");
    }
}

//! A hub and an edge site: two real NATS servers, one a leaf node of the other, and a link that can fail.
//!
//! Relies on `k8s/components/edge`, the configuration that hubs and sites are deployed with, so that tests
//! attack the real accounts. Depends on nothing of ours; makes no stream.

use crate::{NatsOptions, NatsServer, TcpProxy, eventually, free_port};
use std::time::Duration;

/// What every edge site's server is configured with: accounts, imports, the remote.
const LEAF: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/nats-leaf.conf"));
/// And every hub's: the listener for leaf nodes.
const HUB: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/nats-hub.conf"));
/// The leaf tries once a second, and a hub that restarts recovers its streams first.
const LINK: Duration = Duration::from_secs(30);
/// For one answer of the hub; a link that is up answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(1);

/// A hub with JetStream domain `hub`, a site with a domain of its own, and the link between them.
/// Plain clients connect to `hub.url()` and `leaf.url()` without credentials; a client of the leaf is in
/// the site's account and reaches the hub's JetStream by the domain.
pub struct EdgeSite {
    /// The hub's server.
    pub hub: NatsServer,
    /// The site's server.
    pub leaf: NatsServer,
    /// Every byte between them: cut it, swallow it, delay it, restore it.
    pub link: TcpProxy,
}

impl EdgeSite {
    /// Starts both and waits until the link is up. `site` is the leaf's JetStream domain.
    ///
    /// # Panics
    /// When a server does not come up (ask [`crate::require`] first), or the link does not.
    pub async fn start(site: &str) -> Self {
        Self::start_with(site, NatsOptions::default(), NatsOptions::default()).await
    }

    /// As [`Self::start`], with options added to those of hub and leaf (not `domain` or `leafnodes`).
    pub async fn start_with(site: &str, hub: NatsOptions, leaf: NatsOptions) -> Self {
        let this = Self::launch(site, hub, leaf, false).await;
        this.wait_for_link(true).await;
        this
    }

    /// As [`Self::start`], with a link that was never up: `link.restore()` makes it.
    pub async fn start_cut_off(site: &str) -> Self {
        Self::launch(site, NatsOptions::default(), NatsOptions::default(), true).await
    }

    async fn launch(site: &str, hub: NatsOptions, leaf: NatsOptions, is_cut: bool) -> Self {
        let leafnodes = free_port();
        let link = TcpProxy::start(format!("127.0.0.1:{leafnodes}")).await;
        let of_hub = format!(
            "server_name: hub\nHUB_LEAF_LISTEN: \"127.0.0.1:{leafnodes}\"\nHUB_LEAF_ADVERTISE: \"{}\"\nleafnodes {{\n{HUB}}}",
            link.address()
        );
        let hub = NatsServer::start(hub.extra(&of_hub).jetstream("domain: hub")).await;
        if is_cut {
            link.cut();
        }
        let of_site = format!("server_name: {site}\nHUB_LEAF_URL: \"nats-leaf://{}\"\n{LEAF}", link.address());
        let leaf = NatsServer::start(leaf.extra(&of_site).jetstream(&format!("domain: {site}"))).await;
        Self { hub, leaf, link }
    }

    /// Whether the hub's JetStream answers a client of the site now.
    pub async fn link_is_up(&self) -> bool {
        let ask = async {
            let client = async_nats::connect(self.leaf.url()).await.ok()?;
            client.request("$JS.hub.API.INFO", "".into()).await.ok()
        };
        tokio::time::timeout(ANSWER, ask).await.is_ok_and(|answer| answer.is_some())
    }

    /// Waits until the link is up, or until it is down.
    ///
    /// # Panics
    /// When it is not so within 30 s.
    pub async fn wait_for_link(&self, up: bool) {
        let what = if up { "the hub answers over the link" } else { "the hub does not answer over the link" };
        eventually(LINK, what, || async { self.link_is_up().await == up }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::jetstream::{self, consumer, object_store, stream};
    use futures_util::StreamExt;
    use tokio::io::AsyncReadExt;

    /// Larger than a message may be, and than the room a reader grants before it must be asked again.
    const BLOB: usize = 6 << 20;

    async fn jetstream_of(url: String, domain: Option<&str>) -> jetstream::Context {
        let client = async_nats::connect(url).await.unwrap();
        match domain {
            Some(domain) => jetstream::with_domain(client, domain),
            None => jetstream::new(client),
        }
    }

    async fn stored(js: &jetstream::Context) -> Vec<(String, u64)> {
        let mut infos: Vec<_> =
            js.streams().map(|info| info.map(|i| (i.config.name, i.state.messages)).unwrap()).collect().await;
        infos.sort();
        infos
    }

    async fn make(js: &jetstream::Context, name: &str, subjects: &[&str]) {
        let subjects = subjects.iter().map(|s| (*s).to_owned()).collect();
        js.create_stream(stream::Config { name: name.into(), subjects, allow_direct: true, ..Default::default() })
            .await
            .unwrap();
    }

    async fn publish(js: &jetstream::Context, subject: &str) -> jetstream::publish::PublishAck {
        js.publish(subject.to_owned(), "x".into()).await.unwrap().await.unwrap()
    }

    /// As they are deployed: included, with what differs in the environment.
    #[test]
    fn the_files_are_valid_when_they_are_included() {
        let Some(()) = crate::require("nats-server") else { return };
        let dir = tempfile::tempdir().unwrap();
        let main = [
            ("hub", "leafnodes { include \"nats-hub.conf\", authorization { users: [ { user: a, password: b } ] } }"),
            ("site", "include \"nats-leaf.conf\""),
        ];
        std::fs::write(dir.path().join("nats-hub.conf"), HUB).unwrap();
        std::fs::write(dir.path().join("nats-leaf.conf"), LEAF).unwrap();
        for (name, text) in main {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("jetstream {{ domain: {name} }}\n{text}\n")).unwrap();
            let mut check = std::process::Command::new(crate::nats::binary().unwrap());
            check.env("HUB_LEAF_LISTEN", "0.0.0.0:7422").env("HUB_LEAF_ADVERTISE", "hub.example:7422");
            check.env("HUB_LEAF_URL", "nats-leaf://site-a:secret@hub.example:7422");
            let out = check.arg("-t").arg("-c").arg(path).output().unwrap();
            assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }

    #[tokio::test]
    async fn evidence_crosses_the_link_and_jobs_do_not() {
        let Some(()) = crate::require("nats-server") else { return };
        let site = EdgeSite::start("site-a").await;
        let hub = jetstream_of(site.hub.url(), None).await;
        let local = jetstream_of(site.leaf.url(), None).await;
        for js in [&hub, &local] {
            make(js, "swarm_jobs", &["swarm.jobs.>"]).await;
            make(js, "events", &["agentforge.events.>"]).await;
        }
        make(&hub, "edge_evidence", &["edge.evidence.>"]).await;
        make(&hub, "tactical", &["tactical.>"]).await;

        // Each PubAck names the server that stored it.
        let cases = [
            ("swarm.jobs.dev.default", "site-a"),
            ("agentforge.events.job.dev.succeeded", "site-a"),
            ("edge.evidence.site-a.00", "hub"),
            ("tactical.markers.site-a.1", "hub"),
        ];
        for (subject, domain) in cases {
            assert_eq!(publish(&local, subject).await.domain, domain, "{subject}");
        }
        publish(&hub, "swarm.jobs.dev.default").await;
        let expected = |names: &[(&str, u64)]| names.iter().map(|(n, m)| ((*n).to_owned(), *m)).collect::<Vec<_>>();
        let of_hub = [("edge_evidence", 1), ("events", 0), ("swarm_jobs", 1), ("tactical", 1)];
        assert_eq!(stored(&hub).await, expected(&of_hub));
        assert_eq!(stored(&local).await, expected(&[("events", 1), ("swarm_jobs", 1)]));
    }

    #[tokio::test]
    async fn the_hubs_jetstream_can_be_used_through_the_leaf() {
        let Some(()) = crate::require("nats-server") else { return };
        let site = EdgeSite::start("site-a").await;
        let hub = jetstream_of(site.hub.url(), None).await;
        make(&hub, "edge_evidence", &["edge.evidence.>"]).await;
        let bucket = object_store::Config { bucket: "edge_evidence_blobs".into(), ..Default::default() };
        hub.create_object_store(bucket).await.unwrap();

        let through = jetstream_of(site.leaf.url(), Some("hub")).await;
        for n in 0..20 {
            publish(&through, &format!("edge.evidence.site-a.{n}")).await;
        }
        let mut stream = through.get_stream("edge_evidence").await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, 20);
        stream.get_last_raw_message_by_subject("edge.evidence.site-a.7").await.unwrap();
        stream.direct_get_last_for_subject("edge.evidence.site-a.7").await.unwrap();
        let config = consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..Default::default() };
        let reader = stream.create_consumer(config).await.unwrap();
        let batch = reader.fetch().max_messages(20).messages().await.unwrap();
        assert_eq!(batch.count().await, 20, "one request is answered with many messages");

        let blobs = through.get_object_store("edge_evidence_blobs").await.unwrap();
        let content: Vec<u8> = (0..BLOB).map(|i| (i % 251) as u8).collect();
        blobs.put("x", &mut content.as_slice()).await.unwrap();
        let mut read = Vec::new();
        blobs.get("x").await.unwrap().read_to_end(&mut read).await.unwrap();
        assert!(read == content, "{} of {BLOB} bytes came back", read.len());
        assert_eq!(blobs.info("x").await.unwrap().size, BLOB);
    }

    #[tokio::test]
    async fn updates_go_both_ways_and_reach_everybody_once() {
        let Some(()) = crate::require("nats-server") else { return };
        let site = EdgeSite::start("site-a").await;
        let (hub, leaf) =
            (async_nats::connect(site.hub.url()).await.unwrap(), async_nats::connect(site.leaf.url()).await.unwrap());
        let (mut at_hub, mut at_leaf) =
            (hub.subscribe("tactical.>").await.unwrap(), leaf.subscribe("tactical.>").await.unwrap());
        // A subscription is known on the other side after a moment: ask until it is heard.
        let end = tokio::time::Instant::now() + LINK;
        loop {
            hub.publish("tactical.probe", "".into()).await.unwrap();
            if tokio::time::timeout(Duration::from_millis(200), at_leaf.next()).await.is_ok() {
                break;
            }
            assert!(tokio::time::Instant::now() < end, "the hub never knew the leaf's subscription");
        }
        leaf.publish("tactical.markers.site-a.1", "".into()).await.unwrap();
        hub.publish("tactical.markers.site-b.1", "".into()).await.unwrap();
        leaf.publish("tactical.end.leaf", "".into()).await.unwrap();
        leaf.flush().await.unwrap();
        // The link keeps the order, so what the leaf sent is at the hub when the hub's end comes back.
        for (name, feed) in [("hub", &mut at_hub), ("leaf", &mut at_leaf)] {
            let mut seen = Vec::new();
            while !seen.iter().any(|s: &String| s == "tactical.end.leaf")
                || !seen.iter().any(|s| s == "tactical.markers.site-b.1")
            {
                let message = tokio::time::timeout(Duration::from_secs(10), feed.next()).await;
                seen.push(message.expect("both arrive").expect("a subscription goes on").subject.to_string());
            }
            for subject in ["tactical.markers.site-a.1", "tactical.markers.site-b.1"] {
                assert_eq!(seen.iter().filter(|s| *s == subject).count(), 1, "{subject} at the {name}: {seen:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_link_is_cut_restored_and_may_never_have_been() {
        let Some(()) = crate::require("nats-server") else { return };
        let site = EdgeSite::start_cut_off("site-a").await;
        assert!(!site.link_is_up().await);
        site.link.restore();
        site.wait_for_link(true).await;
        site.link.blackhole();
        site.wait_for_link(false).await;
        site.link.restore();
        site.wait_for_link(true).await;
        site.link.cut();
        site.wait_for_link(false).await;
        // Longer than it takes to reconnect: there is no way round the link.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!site.link_is_up().await, "the leaf went round the link");
    }
}

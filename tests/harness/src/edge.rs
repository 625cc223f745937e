//! A hub and an edge site: real NATS servers, the hub's with its gate, the site's a leaf node of the gate, and a link that
//! can fail.
//!
//! Relies on `k8s/components/edge`, the configuration that hubs and sites are deployed with, so that tests
//! attack the real accounts. Depends on nothing of ours; makes no stream.

use crate::{NatsOptions, NatsServer, TcpProxy, eventually, free_port};
use nkeys::KeyPair;
use std::time::Duration;

/// What every edge site's server is configured with: accounts, imports, the remote.
const LEAF: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/nats-leaf.conf"));
/// And every hub's gate: its accounts, its listener for leaf nodes, and what one site adds.
const GATE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/nats-gate.conf"));
const HUB: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/nats-hub.conf"));
const ACCOUNT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/components/edge/site-account.conf"));
/// What the gate may at the hub.
const MAY_GATE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/base/nats/may-gate.conf"));
/// The leaf tries once a second, and a hub that restarts recovers its streams first.
const LINK: Duration = Duration::from_secs(30);
/// For one answer of the hub; a link that is up answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(1);

/// The gate of a hub's server, which sites connect to.
pub struct Gate {
    /// The gate's server; it stores nothing.
    pub server: NatsServer,
    /// Where it takes leaf nodes.
    pub leaf_nodes: String,
    /// Has the file of accounts.
    dir: tempfile::TempDir,
}

/// A site's credential: the seed that it has, and the public key that its account at the gate names.
pub struct SiteKey {
    /// The site's name.
    pub site: String,
    /// The site's secret.
    pub seed: String,
    /// What the gate knows of it.
    pub public: String,
}

impl SiteKey {
    /// A new one.
    ///
    /// # Panics
    /// Never: a key of the user kind has a seed.
    pub fn new(site: &str) -> Self {
        let pair = KeyPair::new_user();
        Self { site: site.to_owned(), seed: pair.seed().expect("a new pair has its seed"), public: pair.public_key() }
    }

    /// The site's account, as `agentforge site add` writes it.
    pub fn account(&self) -> String {
        let id = &self.public[self.public.len() - 8..];
        ACCOUNT.replace("@SITE@", &self.site).replace("@ID@", id).replace("@NKEY@", &self.public)
    }
}

/// A hub's options: a port for its gate, and a user for it that may what it may where hubs are deployed. All others
/// come without credentials.
pub fn with_gate(options: NatsOptions, port: u16) -> NatsOptions {
    let text = format!(
        "server_name: hub\nleafnodes {{ listen: \"127.0.0.1:{port}\" }}\nno_auth_user: services\nauthorization {{ users: [\n\
         {{ user: services }}\n\
         {{ user: gate, password: gate, allowed_connection_types: [LEAFNODE], permissions {{\n{MAY_GATE}}} }}\n] }}"
    );
    options.extra(&text).jetstream("domain: hub")
}

impl Gate {
    /// Starts the gate of a hub that listens for it on this port, with these accounts. Sites reach it at `advertised`.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(hub_port: u16, leaf_nodes: u16, advertised: &str, accounts: &str, more: NatsOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("agentforge-gate-").tempdir().expect("a temporary folder");
        let sites = dir.path().join("sites.conf");
        // Relative to the folder of the gate's configuration, which is next to this one.
        let folder = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let included = format!("include \"../{folder}/sites.conf\"");
        let text =
            GATE.replace("include \"../nats-sites/sites.conf\"", &included).replace("include \"nats-hub.conf\"", HUB);
        // On one machine.
        let text = text.replace("include \"tls-gate.conf\"", "");
        std::fs::write(&sites, accounts).expect("the accounts can be written");
        let leaf_nodes = format!("127.0.0.1:{leaf_nodes}");
        let own = format!(
            "server_name: gate\nHUB_LEAF_LISTEN: \"{leaf_nodes}\"\nHUB_LEAF_ADVERTISE: \"{advertised}\"\n\
             HUB_GATE_URL: \"nats-leaf://gate:gate@127.0.0.1:{hub_port}\"\n{text}"
        );
        let options = NatsOptions { without_jetstream: true, ..more };
        Self { server: NatsServer::start(options.extra(&own)).await, leaf_nodes, dir }
    }

    /// Puts other accounts in place, and restarts the gate.
    ///
    /// # Panics
    /// When the gate does not come up.
    pub async fn set_accounts(&mut self, accounts: &str) {
        std::fs::write(self.dir.path().join("sites.conf"), accounts).expect("the accounts can be written");
        self.server.restart().await;
    }
}

/// A hub with JetStream domain `hub`, a site with a domain of its own, and the link between them.
/// Plain clients connect to `hub.url()` and `leaf.url()` without credentials; a client of the leaf is in
/// the site's account and reaches what the hub gives the site by the domain.
pub struct EdgeSite {
    /// The hub's server.
    pub hub: NatsServer,
    /// The hub's gate.
    pub gate: Gate,
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
        let (hub_port, leaf_nodes) = (free_port(), free_port());
        let link = TcpProxy::start(format!("127.0.0.1:{leaf_nodes}")).await;
        // A gate whose messages are larger or smaller than the hub's would be another hub.
        let of_gate = NatsOptions { version: hub.version.clone(), extra: hub.extra.clone(), ..NatsOptions::default() };
        let hub = NatsServer::start(with_gate(hub, hub_port)).await;
        let key = SiteKey::new(site);
        let gate = Gate::start(hub_port, leaf_nodes, &link.address().to_string(), &key.account(), of_gate).await;
        if is_cut {
            link.cut();
        }
        let leaf = NatsServer::start(leaf_of(&key, &link.address().to_string(), leaf)).await;
        Self { hub, gate, leaf, link }
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

/// The options of a site's server. Its clients come without credentials; where sites are deployed each has a user.
pub fn leaf_of(key: &SiteKey, hub: &str, options: NatsOptions) -> NatsOptions {
    let text = LEAF
        .replace("include \"../nats/users.conf\"", "users: [ { user: site } ]")
        .replace("include \"../nats-site/seed.conf\"", &format!("nkey: {}", key.seed));
    let site = &key.site;
    let own = format!("server_name: {site}\nHUB_LEAF_URL: \"nats-leaf://{hub}\"\nno_auth_user: site\n{text}");
    options.extra(&own).jetstream(&format!("domain: {site}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::jetstream::{self, stream};
    use futures_util::StreamExt;

    async fn jetstream_of(url: String) -> jetstream::Context {
        jetstream::new(async_nats::connect(url).await.unwrap())
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
        let key = SiteKey::new("site-a");
        for (name, text) in [
            ("edge/nats-gate.conf", GATE),
            ("edge/nats-hub.conf", HUB),
            ("edge/nats-leaf.conf", LEAF),
            ("edge/tls-gate.conf", ""),
            ("nats-sites/sites.conf", &key.account()),
            ("nats-site/seed.conf", &format!("nkey: {}", key.seed)),
            ("nats/users.conf", "users: [ { user: worker, password: b } ]"),
            ("nats/site.conf", "jetstream { domain: site-a }\ninclude \"../edge/nats-leaf.conf\""),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        for name in ["edge/nats-gate.conf", "nats/site.conf"] {
            let mut check = std::process::Command::new(crate::nats::binary().unwrap());
            check.env("HUB_LEAF_LISTEN", "0.0.0.0:7422").env("HUB_LEAF_ADVERTISE", "hub.example:7422");
            check.env("HUB_GATE_URL", "nats-leaf://gate:secret@127.0.0.1:7421");
            check.env("HUB_LEAF_URL", "nats-leaf://hub.example:7422");
            let out = check.arg("-t").arg("-c").arg(dir.path().join(name)).output().unwrap();
            assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        }
    }

    #[tokio::test]
    async fn evidence_crosses_the_link_and_jobs_do_not() {
        let Some(()) = crate::require("nats-server") else { return };
        let site = EdgeSite::start("site-a").await;
        let hub = jetstream_of(site.hub.url()).await;
        let local = jetstream_of(site.leaf.url()).await;
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

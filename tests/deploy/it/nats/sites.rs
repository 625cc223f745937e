//! What a site can do to its hub: deliver what is its own, and nothing else; until it is revoked.
//!
//! Production's hub with its gate, and the site of the edge overlay, as they are rendered. The attacker has everything
//! that a site has: its credential, and a NATS server with no walls between accounts.

use super::{
    Server, WAIT,
    attempts::{Attempt, JOBS, ORDER, attempts},
    service, tls,
};
use crate::manifests::{list, overlay, secrets};
use agentforge_harness::{NatsOptions, NatsServer, SiteKey, eventually, free_port, require};
use async_nats::{
    Client, ConnectOptions, StatusCode,
    jetstream::{self, stream},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;

/// The user that makes streams at the hub, and one that publishes jobs.
const MAKER: &str = "topology";
const PUBLISHER: &str = "orchestrator";
/// What an attacker would like to have: evidence of another site, jobs of the hub.
const SECRET: &str = "of somebody else";
/// What is its own.
const OWN: &str = "of the site itself";

/// Production's first server with its gate.
pub(super) struct Hub {
    pub(super) server: Server,
    pub(super) gate: Server,
    leaf_nodes: u16,
}

impl Hub {
    pub(super) async fn start(sites: &[&SiteKey]) -> Self {
        // One server stands for the hub: routes to two that are not there would hold its JetStream up.
        let mut objects = overlay("production");
        let config =
            objects.iter_mut().find(|o| o.kind() == "ConfigMap" && o.name().starts_with("nats-config")).unwrap();
        config.0["data"]["cluster.conf"] = "".into();
        let (inner, leaf_nodes) = (free_port(), free_port());
        let mut server = Server::new(&objects, "hub-0", &[]);
        server.env.insert("HUB_GATE_LISTEN".into(), format!("127.0.0.1:{inner}"));
        server.start().await;
        let mut gate = Server::of(&objects, "gate", "hub-0", &[]);
        for key in ["HUB_LEAF_LISTEN", "HUB_LEAF_ADVERTISE"] {
            // By a name of its certificate.
            gate.env.insert(
                key.into(),
                format!("{}:{leaf_nodes}", if key.ends_with("LISTEN") { "127.0.0.1" } else { "localhost" }),
            );
        }
        let url = gate.env["HUB_GATE_URL"].replace("127.0.0.1:7421", &format!("127.0.0.1:{inner}"));
        assert!(url.starts_with("nats-leaf://gate:") && !url.contains("7421"), "{url}");
        gate.env.insert("HUB_GATE_URL".into(), url);
        let mut this = Self { server, gate, leaf_nodes };
        this.set_sites(sites);
        this.gate.start().await;
        this
    }

    /// Writes the sites' accounts, as `agentforge site add` and `revoke` do.
    fn set_sites(&self, sites: &[&SiteKey]) {
        let accounts: String = sites.iter().map(|key| key.account()).collect();
        self.gate.write("etc/nats-sites/sites.conf", &accounts);
    }

    /// The server of a site of the edge overlay.
    pub(super) async fn site(&self, key: &SiteKey) -> Server {
        let mut site = self.site_of(key);
        site.start().await;
        site
    }

    /// As [`Self::site`], not started.
    pub(super) fn site_of(&self, key: &SiteKey) -> Server {
        let mut site = Server::new(&overlay("edge"), "nats-0", &[]);
        let url = site.env["HUB_LEAF_URL"].replace("hub.agentforge.internal:7422", &self.leaf_address());
        assert!(url.starts_with("tls://") && !url.contains('@'), "{url}");
        site.env.insert("HUB_LEAF_URL".into(), url);
        site.env.insert("JS_DOMAIN".into(), key.site.clone());
        site.write("etc/nats-site/seed.conf", &format!("nkey: {}", key.seed));
        site
    }

    fn leaf_address(&self) -> String {
        format!("localhost:{}", self.leaf_nodes)
    }

    /// A server that has a credential and no walls: its clients are in the account at the gate.
    async fn rogue(&self, more: &str) -> NatsServer {
        let authority = tls::authority().join("ca.crt").display().to_string();
        let remote =
            format!("{{ urls: [\"tls://{}\"], tls {{ ca_file: \"{authority}\" }} {more} }}", self.leaf_address());
        let options = NatsOptions { without_jetstream: true, ..NatsOptions::default() };
        let text = format!("server_name: rogue\nleafnodes {{ reconnect: \"1s\", remotes: [ {remote} ] }}");
        NatsServer::start(options.extra(&text)).await
    }

    /// The accounts whose sites are connected.
    pub(super) async fn connected(&self) -> BTreeSet<String> {
        let leafz = self.gate.get("/leafz").await;
        let accounts = list(&leafz["leafs"]).iter().filter_map(|leaf| leaf["account"].as_str()?.strip_prefix("SITE-"));
        // The end of its key follows the site's name.
        accounts.filter_map(|account| Some(account.rsplit_once('-')?.0.to_owned())).collect()
    }

    async fn until_connected(&self, sites: &[&str]) {
        let wanted: BTreeSet<String> = sites.iter().map(|site| (*site).to_owned()).collect();
        eventually(WAIT, &format!("connected are {sites:?}"), || async {
            let found = self.connected().await;
            if found == wanted { Ok(()) } else { Err(found) }
        })
        .await;
    }
}

/// As `kubectl exec nats-0 -c gate -- /service --signal quit=1` does: the container starts again.
async fn restart(gate: &mut Server) {
    if let Some(mut proc) = gate.proc.take() {
        let _ = proc.sigterm(WAIT).await;
    }
    gate.start().await;
}

/// The streams of evidence, as the hub makes them.
pub(super) async fn evidence_streams(hub: &Server) {
    let js = jetstream::new(hub.client(MAKER).await);
    let evidence = stream::Config {
        name: "edge_evidence".into(),
        subjects: vec!["edge.evidence.>".into()],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        discard_new_per_subject: true,
        ..small()
    };
    let blobs = stream::Config {
        name: "OBJ_edge_evidence_blobs".into(),
        subjects: vec!["$O.edge_evidence_blobs.C.>".into(), "$O.edge_evidence_blobs.M.>".into()],
        discard: stream::DiscardPolicy::New,
        ..small()
    };
    for config in [evidence, blobs] {
        eventually(WAIT, "it is made", || async {
            js.create_stream(config.clone()).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
    }
}

fn small() -> stream::Config {
    stream::Config { max_bytes: 64 << 20, allow_direct: true, ..Default::default() }
}

/// How many messages a stream of a server has.
pub(super) async fn stored(server: &Server, stream: &str) -> u64 {
    let jsz = server.get("/jsz?accounts=true&streams=true").await;
    let accounts = list(&jsz["account_details"]).iter().flat_map(|a| list(&a["stream_detail"]));
    accounts.filter(|s| s["name"] == stream).map(|s| s["state"]["messages"].as_u64().unwrap()).sum()
}

/// All streams with their settings, consumers and messages, but for the messages of those that sites fill.
async fn everything(server: &Server) -> BTreeMap<String, Value> {
    let jsz = server.get("/jsz?accounts=true&streams=true&consumers=true&config=true").await;
    let streams = list(&jsz["account_details"]).iter().flat_map(|a| list(&a["stream_detail"]));
    let mut found = BTreeMap::new();
    for stream in streams {
        let name = stream["name"].as_str().unwrap().to_owned();
        let is_filled = ["edge_evidence", "OBJ_edge_evidence_blobs", "tactical"].contains(&name.as_str());
        let messages = if is_filled { Value::Null } else { stream["state"]["messages"].clone() };
        let consumers: Vec<_> = list(&stream["consumer_detail"]).iter().map(|c| c["name"].clone()).collect();
        let known = json!({"config": stream["config"], "consumers": consumers, "messages": messages, "first": stream["state"]["first_seq"]});
        found.insert(name, known);
    }
    found
}

/// Makes every attempt, and gives those that were answered by more than a refusal.
async fn attack(client: &Client) -> Vec<String> {
    let mut answers = client.subscribe("_INBOX.attack.*").await.unwrap();
    let all = attempts();
    for (n, Attempt { subject, headers, payload }) in all.iter().enumerate() {
        let (subject, reply) = (subject.clone(), format!("_INBOX.attack.{n}"));
        client.publish_with_reply_and_headers(subject, reply, headers.clone(), payload.clone().into()).await.unwrap();
    }
    // The stored body copied to a subject of the attacker's choice: once the worst of all ways.
    for subject in [JOBS, "_INBOX.worker.x", "$JS.API.STREAM.PURGE.swarm_jobs"] {
        let get = "$JS.hub.API.DIRECT.GET.edge_evidence.edge.evidence.site-a.own";
        client.publish_with_reply(get, subject, "".into()).await.unwrap();
        client.publish_with_reply("edge.evidence.site-a.again", subject, ORDER.into()).await.unwrap();
    }
    client.flush().await.unwrap();
    let mut answered = Vec::new();
    while let Ok(Some(answer)) = timeout(Duration::from_secs(3), answers.next()).await {
        let n: usize = answer.subject.rsplit('.').next().unwrap().parse().unwrap();
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        let is_refusal = answer.status == Some(StatusCode::NO_RESPONDERS)
            || answer.status.is_some_and(|status| status.as_u16() >= 400)
            || text.contains("\"error\"");
        if !is_refusal {
            answered.push(format!("{} {}", all[n].subject, text.chars().take(200).collect::<String>()));
        }
    }
    answered
}

/// A hub with work of its own, evidence of another site, and a consumer that an attacker might delete.
async fn busy_hub(hub: &Hub) {
    evidence_streams(&hub.server).await;
    let js = jetstream::new(hub.server.client(MAKER).await);
    for (name, subject) in
        [("swarm_jobs", "swarm.jobs.>"), ("tactical", "tactical.>"), ("events", "agentforge.events.>")]
    {
        let config = stream::Config { name: name.into(), subjects: vec![subject.into()], ..small() };
        js.create_stream(config).await.unwrap();
    }
    let js = jetstream::new(hub.server.client(PUBLISHER).await);
    js.publish(JOBS, SECRET.into()).await.unwrap().await.unwrap();
}

/// Whether anything answers a message there.
async fn answers(client: &Client, subject: &'static str) -> bool {
    timeout(Duration::from_secs(2), client.request(subject, "x".into())).await.is_ok_and(|answer| answer.is_ok())
}

/// Of a client that knows the authority, so that nothing but its login is refused.
fn trusting(options: ConnectOptions) -> ConnectOptions {
    options.add_root_certificates(tls::authority().join("ca.crt"))
}

/// Whether the hub answers a site at all.
async fn is_heard(client: &Client) -> bool {
    answers(client, "$JS.hub.API.INFO").await
}

#[tokio::test]
async fn a_site_hears_nothing_changes_nothing_and_runs_nothing() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (a, b) = (SiteKey::new("site-a"), SiteKey::new("site-b"));
    let hub = Hub::start(&[&a, &b]).await;
    busy_hub(&hub).await;
    let other = hub.rogue(&format!(", nkey: {}", b.seed)).await;
    let rogue = hub.rogue(&format!(", nkey: {}", a.seed)).await;
    hub.until_connected(&["site-a", "site-b"]).await;

    // What is its own works, even so.
    let other = async_nats::connect(other.url()).await.unwrap();
    let rogue = async_nats::connect(rogue.url()).await.unwrap();
    let publish = async |client: &Client, subject: &str, body: &str| -> Value {
        let (subject, body) = (subject.to_owned(), body.to_owned());
        eventually(WAIT, &format!("{subject} is acknowledged"), || async {
            let answer = client.request(subject.clone(), body.clone().into()).await.map_err(|e| e.to_string())?;
            serde_json::from_slice(&answer.payload).map_err(|e| format!("{e} {:?}", answer.status))
        })
        .await
    };
    for (client, site) in [(&other, "site-b"), (&rogue, "site-a")] {
        for kind in ["edge.evidence", "$O.edge_evidence_blobs.C", "tactical.markers", "tactical.zones"] {
            let (name, body) = if site == "site-b" { ("secret", SECRET) } else { ("own", OWN) };
            let ack = publish(client, &format!("{kind}.{site}.{name}"), body).await;
            assert_eq!(ack["domain"], "hub", "{kind} {ack}");
        }
    }
    let own = "$JS.hub.API.DIRECT.GET.edge_evidence.edge.evidence.site-a.own";
    assert_eq!(&*rogue.request(own, "".into()).await.unwrap().payload, OWN.as_bytes());

    let before = everything(&hub.server).await;
    let mut heard = rogue.subscribe(">").await.unwrap();
    let mut hub_hears = hub.server.client("worker").await.subscribe("swarm.control.*.cancel").await.unwrap();
    let answered = attack(&rogue).await;
    // The hub and the other site work meanwhile.
    let js = jetstream::new(hub.server.client(PUBLISHER).await);
    js.publish(JOBS, SECRET.into()).await.unwrap().await.unwrap();
    js.get_stream("swarm_jobs").await.unwrap();
    publish(&other, "edge.evidence.site-b.later", SECRET).await;
    publish(&other, "tactical.markers.site-b.later", SECRET).await;

    // Only its own evidence is taken, as it is: no header of it does anything.
    let allowed = ["edge.evidence.site-a.trace", "edge.evidence.site-a.schedule"];
    let refused: Vec<_> = answered.iter().filter(|a| !allowed.iter().any(|own| a.starts_with(own))).collect();
    assert_eq!(refused, Vec::<&String>::new());
    let mut after = everything(&hub.server).await;
    let jobs = after.get_mut("swarm_jobs").unwrap();
    assert_eq!(jobs["messages"], 2, "the hub's own");
    jobs["messages"] = 1.into();
    assert_eq!(after, before);
    // Of the other site nothing is gone and nothing is new.
    for (subject, expected) in [("edge.evidence.site-b.secret", true), ("edge.evidence.site-b.forged", false)] {
        let get = format!("$JS.hub.API.DIRECT.GET.edge_evidence.{subject}");
        let answer = other.request(get, "".into()).await.unwrap();
        assert_eq!(answer.payload == SECRET.as_bytes(), expected, "{subject}");
    }
    let get = "$JS.hub.API.DIRECT.GET.OBJ_edge_evidence_blobs.$O.edge_evidence_blobs.C.site-b.secret";
    assert_eq!(&*other.request(get, "".into()).await.unwrap().payload, SECRET.as_bytes());

    // All that the site's server hears is what its own clients say and what answers them.
    let said: BTreeSet<String> = attempts().into_iter().map(|a| a.subject).collect();
    let mut strange = Vec::new();
    while let Ok(Some(message)) = timeout(Duration::from_secs(2), heard.next()).await {
        let subject = message.subject.to_string();
        let own = ["_INBOX.", "edge.evidence.site-a.", "$JS.hub.API.DIRECT.GET.edge_evidence.edge.evidence.site-a."];
        let is_own = said.contains(&subject) || own.iter().any(|prefix| subject.starts_with(prefix));
        if !is_own || String::from_utf8_lossy(&message.payload).contains(SECRET) {
            strange.push((subject, String::from_utf8_lossy(&message.payload).into_owned()));
        }
    }
    assert_eq!(strange, Vec::new());
    assert!(timeout(Duration::from_millis(100), hub_hears.next()).await.is_err(), "the hub heard an order of the site");
}

/// Behind the walls of the site's own server, with and without one of its users.
#[tokio::test]
async fn a_client_of_a_site_needs_a_user_and_has_its_rights_alone() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let key = SiteKey::new("site-a");
    let hub = Hub::start(&[&key]).await;
    busy_hub(&hub).await;
    let site = hub.site(&key).await;
    hub.until_connected(&["site-a"]).await;
    assert!(trusting(ConnectOptions::new()).connect(site.url()).await.is_err(), "nobody gets in without a user");
    let nkey = trusting(ConnectOptions::with_nkey(key.seed.clone()));
    assert!(nkey.connect(site.url()).await.is_err(), "the site's credential is for its link");
    let syncdaemon = site.client("syncdaemon").await;
    eventually(WAIT, "evidence is acknowledged by the hub", || async {
        let answer = syncdaemon.request("edge.evidence.site-a.own", OWN.into()).await.map_err(|e| e.to_string())?;
        let ack: Value = serde_json::from_slice(&answer.payload).map_err(|e| e.to_string())?;
        if ack["domain"] == "hub" || ack["error"]["err_code"] == 10_077 { Ok(()) } else { Err(ack.to_string()) }
    })
    .await;
    let before = everything(&hub.server).await;
    for user in ["syncdaemon", "orchestrator", "worker"] {
        let client = site.client(user).await;
        let mut answers = client.subscribe(format!("_INBOX.{user}.attack.*")).await.unwrap();
        for (n, Attempt { subject, headers, payload }) in attempts().into_iter().enumerate() {
            // What the site's own JetStream answers is the site's.
            if subject.starts_with("$JS.API") {
                continue;
            }
            let reply = format!("_INBOX.{user}.attack.{n}");
            client.publish_with_reply_and_headers(subject, reply, headers, payload.into()).await.unwrap();
        }
        client.flush().await.unwrap();
        while let Ok(Some(answer)) = timeout(Duration::from_secs(2), answers.next()).await {
            let text = String::from_utf8_lossy(&answer.payload).into_owned();
            assert!(!text.contains(SECRET), "{user} {} {text}", answer.subject);
        }
    }
    // What is asked over the same link after the attempts is answered after they have arrived: what is stored, and what goes
    // through JetStream's API.
    for (subject, payload) in [("edge.evidence.site-a.after", "after"), ("$JS.hub.API.INFO", "")] {
        let answer = syncdaemon.request(subject, payload.into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer["error"].is_null(), "{subject}: {answer}");
    }
    assert_eq!(everything(&hub.server).await, before);
    let get = "$JS.hub.API.DIRECT.GET.edge_evidence.edge.evidence.site-a.own";
    assert_eq!(&*syncdaemon.request(get, "".into()).await.unwrap().payload, OWN.as_bytes());
}

#[tokio::test]
async fn nobody_comes_through_the_gate_without_a_sites_credential() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (key, unknown) = (SiteKey::new("site-a"), SiteKey::new("site-a"));
    let hub = Hub::start(&[&key]).await;
    let gate = secrets()["nats-users"]["gate"].clone();
    let strangers = [
        hub.rogue("").await,
        // Another key for a name that exists.
        hub.rogue(&format!(", nkey: {}", unknown.seed)).await,
    ];
    eventually(WAIT, "they are refused", || async {
        let log = hub.gate.log();
        let with_a_key = log.contains("authentication error - Nkey");
        let both = with_a_key && log.lines().any(|line| line.ends_with("authentication error"));
        if both { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(hub.connected().await, BTreeSet::<String>::new());
    drop(strangers);
    // Nor is the gate a server for clients, or its user one of them.
    assert!(async_nats::connect(hub.gate.url()).await.is_err());
    assert!(ConnectOptions::with_nkey(key.seed.clone()).connect(hub.gate.url()).await.is_err());
    assert!(trusting(ConnectOptions::with_nkey(key.seed)).connect(hub.server.url()).await.is_err());
    for (user, password) in [("nobody", "nobody"), ("gate", gate.as_str())] {
        for url in [hub.gate.url(), hub.server.url()] {
            let options = trusting(ConnectOptions::with_user_and_password(user.into(), password.into()));
            assert!(options.connect(&url).await.is_err(), "{user} at {url}");
        }
    }
}

#[tokio::test]
async fn a_site_that_is_revoked_is_cut_and_the_others_go_on() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (a, b) = (SiteKey::new("site-a"), SiteKey::new("site-b"));
    let mut hub = Hub::start(&[&a, &b]).await;
    evidence_streams(&hub.server).await;
    let (site_a, site_b) = (hub.site(&a).await, hub.site(&b).await);
    hub.until_connected(&["site-a", "site-b"]).await;
    let edge = overlay("edge");
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut daemons = Vec::new();
    for ((site, dir), name) in [&site_a, &site_b].into_iter().zip(&dirs).zip(["site-a", "site-b"]) {
        let mut daemon = service(&edge, "syncdaemon", site, dir, &[("SITE", name)]);
        daemon.ready(WAIT).await;
        daemons.push(daemon);
    }
    let put = |n: usize, name: &str| {
        let replay = dirs[n].path().join("syncdaemon/agentforge/replay");
        std::fs::write(dirs[n].path().join(name), format!("{n} {name}")).unwrap();
        std::fs::rename(dirs[n].path().join(name), replay.join(name)).unwrap();
    };
    let evidence = async |count: u64, what: &str| {
        eventually(WAIT, what, || async {
            let found = stored(&hub.server, "edge_evidence").await;
            if found == count { Ok(()) } else { Err(found) }
        })
        .await;
    };
    put(0, "first");
    put(1, "first");
    evidence(2, "both deliver").await;

    let (of_a, of_b) = (site_a.client("syncdaemon").await, site_b.client("syncdaemon").await);
    assert!(is_heard(&of_a).await && is_heard(&of_b).await);
    hub.set_sites(&[&b]);
    restart(&mut hub.gate).await;
    hub.until_connected(&["site-b"]).await;
    eventually(WAIT, "the hub does not hear the site", || async { !is_heard(&of_a).await }).await;
    eventually(WAIT, "it hears the other one", || async { is_heard(&of_b).await }).await;
    put(0, "after");
    put(1, "after");
    evidence(3, "the other goes on").await;
    assert!(!answers(&of_a, "edge.evidence.site-a.forged").await);
    assert!(!is_heard(&of_a).await && is_heard(&of_b).await);
    assert_eq!(stored(&hub.server, "edge_evidence").await, 3);
    assert!(dirs[0].path().join("syncdaemon/agentforge/replay/after").exists(), "what is not delivered stays");

    // With a new credential it is the same site again, and the old one is of no use: not over the connection that it has,
    // and not for a new one.
    let again = SiteKey::new("site-a");
    hub.set_sites(&[&b, &again]);
    restart(&mut hub.gate).await;
    let renewed = hub.site(&again).await;
    let of_renewed = renewed.client("syncdaemon").await;
    eventually(WAIT, "the hub hears the new credential", || async { is_heard(&of_renewed).await }).await;
    assert!(!is_heard(&of_a).await);
    assert!(!answers(&of_a, "edge.evidence.site-a.forged").await);
    for mut daemon in daemons {
        let _ = daemon.sigterm(WAIT).await;
    }
    drop(site_a);
    let stale = hub.rogue(&format!(", nkey: {}", a.seed)).await;
    let stale = async_nats::connect(stale.url()).await.unwrap();
    let refusals = hub.gate.log().matches("uthentication error").count();
    eventually(WAIT, "the old credential is refused", || async {
        hub.gate.log().matches("uthentication error").count() > refusals
    })
    .await;
    assert!(!is_heard(&stale).await);
    let mut daemon = service(&edge, "syncdaemon", &renewed, &dirs[0], &[("SITE", "site-a")]);
    daemon.ready(WAIT).await;
    evidence(4, "what had stayed is delivered").await;
    assert_eq!(daemon.sigterm(WAIT).await, 0);
}

/// A name that is given away and taken back between two restarts has another account.
#[tokio::test]
async fn a_site_that_gets_a_new_credential_in_one_step_loses_the_old_one() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (old, new) = (SiteKey::new("site-a"), SiteKey::new("site-a"));
    let mut hub = Hub::start(&[&old]).await;
    evidence_streams(&hub.server).await;
    let site = hub.rogue(&format!(", nkey: {}", old.seed)).await;
    let site = async_nats::connect(site.url()).await.unwrap();
    eventually(WAIT, "the hub hears the site", || async { is_heard(&site).await }).await;
    hub.set_sites(&[&new]);
    restart(&mut hub.gate).await;
    eventually(WAIT, "the hub does not hear the site", || async { !is_heard(&site).await }).await;
    assert!(!answers(&site, "edge.evidence.site-a.forged").await);
    assert_eq!(stored(&hub.server, "edge_evidence").await, 0);
}

//! TLS of the NATS servers as production and a site have it: on every port, renewed while it is used, and refused where
//! it must be. The certificates are those of `scripts/make-certificates`.

use super::cluster::production;
use super::{Server, WAIT, login, service};
use crate::manifests::{OVERLAYS, Object, containers, list, overlay, root, texts};
use agentforge_harness::{Signal, eventually, require};
use async_nats::jetstream::{self, stream};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The folder of the authority of this process's tests.
pub fn authority() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let dir = MADE.get_or_init(|| {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        make(dir.path());
        dir
    });
    dir.path()
}

/// An authority that no server or client here trusts, as text.
pub fn another_authority() -> String {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path())["ca.crt"].clone()
}

/// What the script puts into the Secret nats-tls, signed by the authority of a folder.
fn make(folder: &Path) -> BTreeMap<String, String> {
    let mut command = Command::new(root().join("scripts/make-certificates"));
    command.args(["agentforge", "--authority"]).arg(folder);
    command.args(["--name", "hub.agentforge.internal", "--name", "localhost", "--name", "127.0.0.1"]);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let secret: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&secret["metadata"]["name"], &secret["type"]), (&"nats-tls".into(), &"kubernetes.io/tls".into()));
    texts(&secret["stringData"])
}

/// The files of a mounted Secret.
pub fn lay_out(secret: &str, folder: &Path) {
    match secret {
        "nats-tls" => renew(folder),
        // `agentforge site add` makes it; a test writes the one that it needs.
        "nats-site" => {}
        "nats-hub-ca" => drop(std::fs::copy(authority().join("ca.crt"), folder.join("ca.crt")).unwrap()),
        name => panic!("no Secret {name}"),
    }
}

/// A new certificate of the same authority, in place of the one before.
fn renew(folder: &Path) {
    for (name, text) in make(authority()) {
        std::fs::write(folder.join(format!(".{name}")), text).unwrap();
        std::fs::rename(folder.join(format!(".{name}")), folder.join(name)).unwrap();
    }
}

fn client_config() -> Arc<ClientConfig> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority().join("ca.crt")).unwrap()).unwrap();
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Over a TCP connection to localhost, from which NATS' greeting was read if it sends one in clear.
async fn handshake(stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    TlsConnector::from(client_config()).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Status and body of an `https://127.0.0.1:PORT/…` URL.
pub async fn get(url: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let (address, path) = url.trim_start_matches("https://").split_once('/').unwrap();
    let mut stream = handshake(TcpStream::connect(address).await?).await?;
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let wrong = || std::io::Error::other("the answer is not HTTP");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(wrong)?;
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).and_then(|s| s.parse().ok());
    Ok((status.ok_or_else(wrong)?, answer.split_off(end + 4)))
}

/// The certificate that a port shows now.
async fn shown(port: u16, greets: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    while greets && stream.read_u8().await.unwrap() != b'\n' {}
    let stream = handshake(stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_production_are_renewed_under_load_and_no_message_fails() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let mut servers = production().await;
    let urls: Vec<String> = servers.iter().map(Server::url).collect();
    let js = jetstream::new(login("orchestrator").connect(&urls[..]).await.unwrap());
    let config = || stream::Config {
        name: "swarm_dlq".into(),
        subjects: vec!["swarm.dlq.>".into()],
        num_replicas: 3,
        max_bytes: 64 << 20,
        ..Default::default()
    };
    let topology = jetstream::new(login("topology").connect(&urls[..]).await.unwrap());
    eventually(WAIT, "a stream of three copies is made over TLS routes", || async {
        topology.create_stream(config()).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (js, stop, sent, urls) = (js.clone(), stop.clone(), sent.clone(), urls.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // One connection that stays, and one that is made now.
                // A server that reads its configuration again may turn a login away in that moment, and close its
                // routes, so that a publish finds no stream; services try again.
                eventually(WAIT, "a message is stored", || async {
                    let ack =
                        js.publish("swarm.dlq.production.default", "x".into()).await.map_err(|e| e.to_string())?;
                    ack.await.map(drop).map_err(|e| e.to_string())
                })
                .await;
                let fresh = eventually(WAIT, "a new connection is made", || async {
                    login("orchestrator").connect(&urls[..]).await.map_err(|e| e.to_string())
                });
                fresh.await.flush().await.unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let ports = |server: &Server| [(server.client, true), (server.monitor, false)];
    for server in &mut servers {
        let (before, at) = (shown(server.monitor, false).await, sent.load(Ordering::Relaxed));
        renew(&server.dir.path().join("etc/nats-tls"));
        // What docs/runbooks/certificates.md has: `/service --signal reload=1` in the pod.
        server.proc.as_mut().unwrap().signal(Signal::HUP);
        for (port, greets) in ports(server) {
            eventually(WAIT, "the renewed certificate is shown", || async { shown(port, greets).await != before })
                .await;
        }
        eventually(WAIT, "the load goes on", || {
            let more = sent.load(Ordering::Relaxed) > at + 5;
            async move { more }
        })
        .await;
    }
    // A pair that cannot be used changes nothing.
    let (before, server) = (shown(servers[0].monitor, false).await, &mut servers[0]);
    std::fs::write(server.dir.path().join("etc/nats-tls/tls.key"), "nothing").unwrap();
    server.proc.as_mut().unwrap().signal(Signal::HUP);
    eventually(WAIT, "the reload is refused", || {
        let log = server.log();
        async move { log.contains("Failed to reload server configuration") }
    })
    .await;
    assert_eq!(shown(server.monitor, false).await, before);
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    println!("{} messages, each beside a new connection, over three renewals", sent.load(Ordering::Relaxed));
    for server in &servers {
        let varz = server.get("/varz").await;
        assert_eq!((&varz["tls_required"], &varz["cluster"]["tls_required"]), (&true.into(), &true.into()), "{varz}");
        let log = server.log();
        assert!(!log.contains("route handshake error"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_is_refused_and_one_of_another_authority_names_its_setting_and_file() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let objects = one_of_production();
    let mut nats = Server::new(&objects, "nats-0", &[]);
    nats.env.insert("HUB_GATE_LISTEN".into(), "127.0.0.1:-1".into());
    nats.start().await;
    let mut plain = TcpStream::connect(("127.0.0.1", nats.client)).await.unwrap();
    plain.write_all(b"CONNECT {\"user\":\"x\",\"pass\":\"y\"}\r\nPING\r\n").await.unwrap();
    let mut answer = String::new();
    let closed = tokio::time::timeout(WAIT, plain.read_to_string(&mut answer)).await.expect("it is closed");
    assert!(closed.is_err() || !answer.contains("PONG"), "{answer}");

    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign.pem");
    std::fs::write(&foreign, another_authority()).unwrap();
    let foreign = foreign.display().to_string();
    let worker = service(&objects, "worker", &nats, &dir, &[("NATS_TLS_CA", &foreign)]);
    eventually(WAIT, "the worker says what is wrong", || {
        let log = worker.full_log();
        let is_named = log.contains(&foreign) && log.contains("NATS_TLS_CA");
        async move { if is_named { Ok(()) } else { Err(log) } }
    })
    .await;
    let empty = dir.path().join("empty.pem").display().to_string();
    std::fs::write(&empty, "nothing").unwrap();
    let mut worker = service(&objects, "worker", &nats, &dir, &[("NATS_TLS_CA", &empty)]);
    eventually(WAIT, "the worker does not start", || {
        let running = worker.is_running();
        async move { !running }
    })
    .await;
    assert!(worker.full_log().contains(&format!("{empty} (from NATS_TLS_CA)")), "{}", worker.full_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_move_to_tls_one_by_one_while_both_are_allowed() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let mut nats = Server::new(&one_of_production(), "nats-0", &[]);
    nats.env.insert("HUB_GATE_LISTEN".into(), "127.0.0.1:-1".into());
    nats.env.insert("NATS_ALLOW_NON_TLS".into(), "true".into());
    nats.start().await;
    for url in [format!("nats://127.0.0.1:{}", nats.client), nats.url()] {
        let is_tls = url.starts_with("tls");
        let client = login("orchestrator").require_tls(is_tls).connect(&url).await.unwrap();
        client.flush().await.unwrap();
        let connz = nats.get("/connz").await;
        let with_tls = list(&connz["connections"]).iter().filter(|c| c["tls_version"].is_string()).count();
        assert_eq!(with_tls, usize::from(is_tls), "{url} {connz}");
    }
}

/// Production with one server: routes to two that are not there would hold its JetStream up.
fn one_of_production() -> Vec<Object> {
    let mut objects = overlay("production");
    let config = objects.iter_mut().find(|o| o.kind() == "ConfigMap" && o.name().starts_with("nats-config")).unwrap();
    config.0["data"]["cluster.conf"] = "".into();
    objects
}

/// Overlays that promise TLS.
const PROMISED: [&str; 3] = ["production", "azure-production", "edge"];

/// Places that are others', and no pod of ours.
const OTHERS: [&str; 3] = [
    "http://otel-collector.monitoring.svc:",
    "http://prometheus-operated.monitoring.svc:",
    "http://alertmanager-operated.monitoring.svc:",
];

/// What the console asks in clear, as the gateway does: services' listeners without a certificate, behind the policies of
/// the network. docs/security.md says so.
fn is_of_the_console(url: &str) -> bool {
    let host = url.trim_start_matches("http://").split(':').next().unwrap_or_default();
    host == "nats-prometheus-exporter" || agentforge_stack::roster::find(host).is_some()
}

#[tokio::test]
async fn nothing_goes_between_pods_in_clear_where_tls_is_promised() {
    let Some(()) = require("kubectl") else { return };
    assert!(PROMISED.iter().all(|name| OVERLAYS.contains(name)));
    for name in PROMISED {
        let objects = overlay(name);
        for object in &objects {
            let mut found = Vec::new();
            urls(&object.0, &mut found);
            // A pod speaks to itself in clear.
            let leaves = |url: &&String| !url.contains("@127.0.0.1:");
            let is_ours = |url: &&String| !OTHERS.iter().any(|other| url.starts_with(other));
            let is_console = object.name() == "console";
            let is_new = |url: &&String| !(is_console && is_of_the_console(url));
            let clear: Vec<_> = found.iter().filter(leaves).filter(is_ours).filter(is_new).collect();
            assert!(clear.is_empty(), "{name}: {} {}: {clear:?}", object.kind(), object.name());
        }
        let nats = objects.iter().find(|o| o.kind() == "StatefulSet" && o.name() == "nats").unwrap();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(containers(nats)[0][probe]["httpGet"]["scheme"], "HTTPS", "{name}: {probe}");
        }
        for deployment in objects.iter().filter(|o| o.kind() == "Deployment") {
            let env = list(&containers(deployment)[0]["env"]);
            let is = |key: &str, start: &str| {
                env.iter().any(|v| v["name"] == key && v["value"].as_str().is_some_and(|v| v.starts_with(start)))
            };
            if env.iter().any(|v| v["name"] == "NATS_URL") {
                assert!(is("NATS_URL", "tls://") && is("NATS_TLS_CA", "/"), "{name}: {}", deployment.name());
            }
        }
        // A name that clients use is in the certificate.
        let certificate = objects.iter().find(|o| o.kind() == "Certificate" && o.name() == "nats").unwrap();
        let names = certificate.list("/spec/dnsNames");
        let namespace = nats.namespace().unwrap();
        for wanted in ["nats", "*.nats-headless"] {
            assert!(names.contains(&Value::from(wanted)), "{name}: {names:?}");
            assert!(
                names.contains(&Value::from(format!("{wanted}.{namespace}.svc.cluster.local"))),
                "{name}: {names:?}"
            );
        }
    }
}

/// Every URL of an object whose scheme is one without TLS. Comments of configurations are none of them.
fn urls(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
                for scheme in ["http://", "nats://", "nats-leaf://"] {
                    found.extend(line.match_indices(scheme).map(|(at, _)| line[at..].to_owned()));
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| urls(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| urls(field, found)),
        _ => {}
    }
}

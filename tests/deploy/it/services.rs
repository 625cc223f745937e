//! The services, started with the settings of the manifests: probes, ports and metrics are where the manifests say.
//!
//! Differs from a pod in the addresses of others, in free ports and in folders of the test's own.

use crate::manifests::{Object, containers, environment, find, list, overlay, secrets, seek};
use agentforge_harness::{
    NatsOptions, NatsServer, Postgres, PostgresOptions, Proc, cargo_bin, eventually, http_get, require,
};
use agentforge_stack::roster::{SERVICES, Service};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A start with a database to make, on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// Takes away what ties an environment to its cluster: ports, folders, and NATS' own users.
pub fn at_home(mut env: BTreeMap<String, String>, nats_url: &str, dir: &Path) -> BTreeMap<String, String> {
    for key in ["HTTP_PORT", "GRPC_PORT", "METRICS_PORT"] {
        env.insert(key.to_owned(), "0".to_owned());
    }
    env.insert("BIND_ADDR".to_owned(), "127.0.0.1".to_owned());
    env.insert("SHUTDOWN_PAUSE".to_owned(), "0s".to_owned());
    for key in ["DATA_DIR", "SYNC_QUEUE_DIR", "SYNC_LEDGER_DIR"] {
        if let Some(path) = env.get(key).cloned() {
            env.insert(key.to_owned(), format!("{}{path}", dir.display()));
        }
    }
    if env.contains_key("NATS_URL") {
        env.insert("NATS_URL".to_owned(), nats_url.to_owned());
    }
    for key in ["OTEL_EXPORTER_OTLP_ENDPOINT", "NATS_TLS_CA", "NATS_EXPORTER_NATS_TLS_CA", "LATENCY_SAMPLE_CA_FILE"] {
        env.remove(key);
    }
    env
}

/// The environment of a service in an overlay.
pub fn environment_of(objects: &[Object], name: &str) -> BTreeMap<String, String> {
    let workload = find(objects, "Deployment", name);
    environment(objects, workload, &containers(workload)[0])
}

/// As [`environment_of`], at a server that knows no users and is no cluster, with folders below `dir`.
pub fn environment_at(objects: &[Object], name: &str, nats: &NatsServer, dir: &Path) -> BTreeMap<String, String> {
    let mut env = at_home(environment_of(objects, name), &nats.url(), dir);
    env.remove("NATS_NKEY");
    env.remove("NATS_INBOX_PREFIX");
    // No topology runs there.
    if ["orchestrator", "syncdaemon", "broadcaster", "tactical-api"].contains(&name) {
        env.insert("NATS_TOPOLOGY".to_owned(), "make".to_owned());
    }
    if env.contains_key("NATS_EXPORTER_TARGETS") {
        env.insert("NATS_EXPORTER_TARGETS".to_owned(), format!("nats-0,{}", nats.monitor_url()));
    }
    if env.contains_key("EVIDENCE_REPLICAS") {
        env.insert("EVIDENCE_REPLICAS".to_owned(), "1".to_owned());
    }
    env
}

/// The address behind a port's name, from the ready file.
fn address<'a>(ready: &'a Value, port: &str) -> &'a str {
    let service = ready.as_object().unwrap().values().next().unwrap();
    service[port].as_str().unwrap_or_else(|| panic!("no {port} in {ready}"))
}

/// Asks every probe of a container, and its metrics.
pub async fn probes_answer(name: &str, container: &Value, ready: &Value) {
    let is_named = |port: &Value| list(&container["ports"]).iter().any(|p| p["name"] == *port);
    for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &container[kind]["httpGet"];
        assert!(is_named(&get["port"]), "{name} {kind}");
        let base = address(ready, get["port"].as_str().unwrap()).trim_end_matches("/metrics");
        let url = format!("{base}{}", get["path"].as_str().unwrap());
        eventually(READY, &format!("{name}: {kind} {url}"), || async {
            match http_get(&url, &[]).await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
                Err(e) => Err(e.to_string()),
            }
        })
        .await;
    }
    let metrics = format!("{}/metrics", address(ready, "metrics").trim_end_matches("/metrics"));
    let (status, body) = http_get(&metrics, &[]).await.unwrap();
    assert!(status == 200 && String::from_utf8_lossy(&body).contains("# TYPE "), "{name}: {metrics} {status}");
}

async fn runs_as_in(overlay_name: &str, change: impl Fn(&mut BTreeMap<String, String>)) {
    let objects = overlay(overlay_name);
    // A hub and a site in one: the domain that the manifests name is this server's.
    let nats = NatsServer::start(NatsOptions::default().jetstream("domain: hub")).await;
    let dir = tempfile::tempdir().unwrap();
    let mut running = Vec::new();
    let has = |service: &&Service| seek(&objects, "Deployment", service.name).is_some();
    for service in SERVICES.iter().filter(has) {
        let name = service.name;
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let mut env = environment_at(&objects, name, &nats, &folder);
        change(&mut env);
        running.push((name, Proc::builder(cargo_bin(&service.binary())).envs(env).start()));
    }
    for (name, proc) in &mut running {
        let ready = proc.ready(READY).await;
        let deployment = find(&objects, "Deployment", name);
        probes_answer(name, &containers(deployment)[0], &ready).await;
        let grpc = list(&containers(deployment)[0]["ports"]).iter().any(|p| p["name"] == "grpc");
        assert_eq!(grpc, ready.as_object().unwrap().values().next().unwrap()["grpc"].is_string(), "{name}");
    }
    for (name, mut proc) in running.into_iter().rev() {
        assert_eq!(proc.sigterm(READY).await, 0, "{name}");
    }
}

#[tokio::test]
async fn services_of_a_branch_run_on_its_postgres_and_answer_their_probes() {
    let (Some(()), Some(()), Some(())) = (require("kubectl"), require("nats-server"), require("postgres")) else {
        return;
    };
    let postgres = Postgres::own(PostgresOptions { fsync: false, ..Default::default() }).await;
    let role = &secrets()["orchestrator-database"];
    postgres.sql("postgres", &format!("CREATE ROLE {} LOGIN PASSWORD '{}'", role["user"], role["password"])).await;
    postgres.sql("postgres", &format!("CREATE DATABASE agentforge OWNER {}", role["user"])).await;
    runs_as_in("feature", |env| {
        // The console has a file of its own.
        if let Some(url) = env.get("DATABASE_URL").filter(|url| !url.starts_with("sqlite://")).cloned() {
            // The very URL of the manifest, at the test's server.
            let here = url.replace("@postgres:5432/", &format!("@{}/", postgres.address()));
            assert_ne!(here, url);
            env.insert("DATABASE_URL".to_owned(), here);
        }
    })
    .await;
}

#[tokio::test]
async fn services_of_a_site_run_on_sqlite_and_answer_their_probes() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    runs_as_in("edge", |_| ()).await;
}

//! The NATS configurations of the overlays, started as they are with the real server: with the services' own users,
//! three of them in production, hub and leaf for a site.
//!
//! A pod's folders are made from the ConfigMaps; changed are only ports and places on disk.

mod attacks;
mod attempts;
mod cluster;
mod keys;
mod link;
mod rights;
mod sites;
mod tls;
mod users;

use crate::manifests::{Object, containers, environment, find, list, overlay, secrets, texts};
use crate::services::{at_home, environment_of};
use agentforge_harness::{Proc, SiteKey, cargo_bin, eventually, free_port, http_get, program, require};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// A start, an election or an answer on a busy machine.
const WAIT: Duration = Duration::from_secs(60);

/// A server as a pod of the StatefulSet would run it.
struct Server {
    dir: TempDir,
    /// The configuration, as the container names it.
    config: String,
    env: BTreeMap<String, String>,
    proc: Option<Proc>,
    client: u16,
    monitor: u16,
    /// Whether the configuration has TLS.
    is_tls: bool,
}

impl Server {
    /// Lays out the pod's folders; `replaced` are texts of the configuration that name fixed ports.
    fn new(objects: &[Object], name: &str, replaced: &[(&str, String)]) -> Self {
        Self::of(objects, "nats", name, replaced)
    }

    /// As [`Self::new`], of one of the pod's containers.
    fn of(objects: &[Object], container: &str, name: &str, replaced: &[(&str, String)]) -> Self {
        let set = find(objects, "StatefulSet", "nats");
        let container = containers(set).iter().find(|c| c["name"] == container).unwrap();
        let config = list(&container["args"])[1].as_str().unwrap().to_owned();
        let mut env = environment(objects, set, container);
        env.insert("POD_NAME".into(), name.into());
        let dir = tempfile::tempdir().unwrap();
        let (client, monitor) = (free_port(), free_port());
        for mount in list(&container["volumeMounts"]) {
            let path = dir.path().join(mount["mountPath"].as_str().unwrap().trim_start_matches('/'));
            std::fs::create_dir_all(&path).unwrap();
            let volumes = set.list("/spec/template/spec/volumes");
            let volume = volumes.iter().find(|v| v["name"] == mount["name"]);
            if let Some(secret) = volume.and_then(|v| v["secret"]["secretName"].as_str()) {
                match secrets().get(secret) {
                    Some(texts) => {
                        for (file, text) in texts {
                            std::fs::write(path.join(file), text).unwrap();
                        }
                    }
                    None => tls::lay_out(secret, &path),
                }
            }
            let Some(config) = volume.and_then(|v| v["configMap"]["name"].as_str()) else { continue };
            for (file, text) in texts(find(objects, "ConfigMap", config).at("/data")) {
                let at_home = |path: &str| format!("{}{path}", dir.path().display());
                let mut text = text.replace("/lib/nats", &at_home("/lib/nats"));
                text = text.replace("/etc/nats-tls", &at_home("/etc/nats-tls"));
                text = text.replace("https_port: 8222", &format!("https: \"127.0.0.1:{monitor}\""));
                for (from, to) in replaced {
                    text = text.replace(from, to);
                }
                std::fs::write(path.join(file), text).unwrap();
            }
        }
        if let Some(authorities) = env.get_mut("SSL_CERT_FILE") {
            *authorities = format!("{}{authorities}", dir.path().display());
        }
        if let Some(advertised) = env.get_mut("NATS_CLIENT_ADVERTISE") {
            *advertised = format!("localhost:{client}");
        }
        let is_tls = env.contains_key("NATS_ALLOW_NON_TLS");
        Self { dir, config, env, proc: None, client, monitor, is_tls }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join(self.config.trim_start_matches('/'))
    }

    /// Writes a file that a Secret or an operator brings, such as `etc/nats-site/seed.conf`.
    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.dir.path().join(path), text).unwrap();
    }

    fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.is_tls { "tls" } else { "nats" }, self.client)
    }

    fn monitor_url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", if self.is_tls { "https" } else { "http" }, self.monitor)
    }

    async fn start(&mut self) {
        let (client, monitor) = (self.client.to_string(), self.monitor.to_string());
        let config = self.config().display().to_string();
        let mut args = vec!["-c", &config, "-a", "127.0.0.1", "-p", &client];
        // With TLS the configuration has it: a server that got this port by a flag does not reload.
        if !self.is_tls {
            args.extend(["-m", &monitor]);
        }
        let start =
            || Proc::builder(program("nats-server").unwrap()).args(args.iter().copied()).envs(self.env.clone()).start();
        let mut proc = start();
        eventually(WAIT, "the server serves", || {
            // A port that was free a moment ago may be taken.
            if !proc.is_running() {
                assert!(proc.log().contains("address already in use"), "{}", proc.full_log());
                proc = start();
            }
            let url = self.monitor_url("/healthz?js-server-only=true");
            async move { monitored(&url).await.is_ok_and(|(status, _)| status == 200) }
        })
        .await;
        self.proc = Some(proc);
    }

    fn log(&self) -> String {
        self.proc.as_ref().map(Proc::full_log).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        let (_, body) = monitored(&self.monitor_url(path)).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    async fn client(&self, user: &str) -> async_nats::Client {
        login(user).connect(self.url()).await.unwrap()
    }
}

/// An answer of a monitoring port, with TLS or without.
async fn monitored(url: &str) -> std::io::Result<(u16, Vec<u8>)> {
    if url.starts_with("https://") { tls::get(url).await } else { http_get(url, &[]).await }
}

/// As one of the users, which subscribes only to its own replies.
fn login(user: &str) -> async_nats::ConnectOptions {
    let options = match secrets()["nats-seeds"].get(user) {
        Some(seed) => async_nats::ConnectOptions::with_nkey(seed.clone()),
        None => async_nats::ConnectOptions::with_user_and_password(user.into(), secrets()["nats-users"][user].clone()),
    };
    options.custom_inbox_prefix(format!("_INBOX.{user}")).add_root_certificates(tls::authority().join("ca.crt"))
}

/// A service of an overlay with its own user, at this server.
fn service(objects: &[Object], name: &str, server: &Server, dir: &TempDir, more: &[(&str, &str)]) -> Proc {
    let folder = dir.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let mut env = at_home(environment_of(objects, name), &server.url(), &folder);
    if server.is_tls {
        env.insert("NATS_TLS_CA".into(), tls::authority().join("ca.crt").display().to_string());
    }
    if env.contains_key("NATS_NKEY") {
        let seed = folder.join("nats-seed");
        std::fs::write(&seed, &secrets()["nats-seeds"][name]).unwrap();
        env.insert("NATS_NKEY".to_owned(), seed.display().to_string());
    }
    for (key, value) in more {
        env.insert((*key).to_owned(), (*value).to_owned());
    }
    // The topology is the orchestrator's program in its other mode.
    let (program, args): (&str, &[&str]) =
        if name == "topology" { ("orchestrator", &["topology"]) } else { (name, &[]) };
    Proc::builder(cargo_bin(&format!("agentforge-{program}"))).args(args.iter().copied()).envs(env).start()
}

/// Waits until a service says that it is ready; returns its address.
async fn is_ready(proc: &mut Proc, name: &str) -> String {
    let http = proc.ready(WAIT).await[name]["http"].as_str().unwrap().to_owned();
    eventually(WAIT, &format!("{name} is ready"), || async {
        match http_get(&format!("{http}/readyz"), &[]).await {
            Ok((200, _)) => Ok(()),
            Ok((_, body)) => Err(String::from_utf8_lossy(&body).into_owned()),
            Err(e) => Err(e.to_string()),
        }
    })
    .await;
    http
}

/// Lines of a server's log about something refused.
fn refused(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("Violation") || line.contains("Authorization")).collect()
}

#[tokio::test]
async fn every_configuration_is_accepted_by_the_server() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    for name in crate::manifests::OVERLAYS {
        let objects = overlay(name);
        let mut servers = vec![Server::new(&objects, "nats-0", &[])];
        if name == "edge" {
            servers[0].write("etc/nats-site/seed.conf", &format!("nkey: {}", SiteKey::new("site-a").seed));
        }
        let set = find(&objects, "StatefulSet", "nats");
        if containers(set).iter().any(|c| c["name"] == "gate") {
            servers.push(Server::of(&objects, "gate", "nats-0", &[]));
        }
        for server in servers {
            check_configuration(name, &server);
        }
    }
}

fn check_configuration(name: &str, server: &Server) {
    let mut check = std::process::Command::new(program("nats-server").unwrap());
    let out = check.arg("-t").arg("-c").arg(server.config()).env_clear().envs(&server.env).output().unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
}

//! The file of tokens of the manifests: every service that reads it mounts it, the tokens of `scripts/make-secrets` do what
//! their roles say, and the commands of docs/howto/access-tokens.md change it under load.

use crate::manifests::{Object, containers, find, list, overlay, root, secret_of_file, secrets};
use crate::services::{environment_at, environment_of};
use agentforge_harness::{
    NatsOptions, NatsServer, Proc, Runbook, cargo_bin, eventually, http_get, http_post_with, require,
};
use agentforge_stack::roster::CONSOLE;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const PAGE: &str = "docs/howto/access-tokens.md";
/// A start or an answer on a busy machine.
const WAIT: Duration = Duration::from_secs(60);
/// Those with callers.
const SERVICES: [&str; 3] = ["orchestrator", "broadcaster", "tactical-api"];

/// The tokens that `scripts/make-secrets` shows, by name, and the file that it makes.
fn made() -> (BTreeMap<String, String>, String) {
    let out = Command::new(root().join("scripts/make-secrets")).arg("some-namespace").output().unwrap();
    let (told, shown) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    let documents = crate::manifests::parse(&told).unwrap();
    let file = find(&documents, "Secret", "access-tokens").text("/stringData/tokens").to_owned();
    let tokens = shown.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(": "));
    let name = |text: &str| text.split(' ').next().unwrap().to_owned();
    let tokens: BTreeMap<_, _> = tokens.map(|(text, token)| (name(text), token.to_owned())).collect();
    assert!(tokens.values().all(|token| !told.contains(token.as_str())), "the Secrets have digests only");
    (tokens, file)
}

/// The services of an overlay with a mounted file of tokens.
struct Stage {
    page: Runbook,
    addresses: BTreeMap<&'static str, String>,
    procs: Vec<Proc>,
    _nats: NatsServer,
    _dir: TempDir,
}

impl Stage {
    async fn start(section: &str, tokens: &str) -> Self {
        let page = Runbook::open(PAGE, section);
        let file = page.secret("access-tokens", &[("tokens", tokens)]).join("tokens");
        let (objects, dir) = (overlay("feature"), tempfile::tempdir().unwrap());
        let nats = NatsServer::start(NatsOptions::default()).await;
        let mut procs = Vec::new();
        for name in SERVICES {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let mut env = environment_at(&objects, name, &nats, &folder);
            assert!(env.insert("ACCESS_TOKENS_FILE".into(), file.display().to_string()).is_some(), "{name}");
            if env.contains_key("DATABASE_URL") {
                env.extend([("POSTGRES_USER", ""), ("POSTGRES_PASSWORD", "")].map(|(k, v)| (k.into(), v.into())));
                env.insert("DATABASE_URL".into(), "sqlite://test.db".into());
            }
            procs.push(Proc::builder(cargo_bin(&format!("agentforge-{name}"))).envs(env).start());
        }
        let mut addresses = BTreeMap::new();
        for (name, proc) in SERVICES.into_iter().zip(&mut procs) {
            let http = proc.ready(WAIT).await[name]["http"].as_str().unwrap().to_owned();
            eventually(WAIT, &format!("{name} is ready"), || async {
                http_get(&format!("{http}/readyz"), &[]).await.is_ok_and(|(status, _)| status == 200)
            })
            .await;
            addresses.insert(name, http);
        }
        Self { page, addresses, procs, _nats: nats, _dir: dir }
    }

    /// How often each service has read the file.
    fn reads(&self) -> Vec<usize> {
        self.procs.iter().map(|proc| proc.full_log().matches("tokens file read").count()).collect()
    }

    /// Waits until every service has read the file again. Asking with a new token meanwhile would count as failed logins,
    /// and lock the address.
    async fn is_read(&self, before: &[usize]) {
        eventually(WAIT, "every service has read the file", || async {
            let now = self.reads();
            if now.iter().zip(before).all(|(now, before)| now > before) { Ok(()) } else { Err(now) }
        })
        .await;
    }

    fn caller(&self, name: &str) -> Caller {
        Caller { service: self.addresses[name].clone() }
    }
}

/// Asks one service.
struct Caller {
    service: String,
}

impl Caller {
    async fn get(&self, path: &str, token: &str) -> u16 {
        let bearer = format!("Authorization: Bearer {token}");
        http_get(&format!("{}{path}", self.service), &[&bearer]).await.unwrap().0
    }
    async fn post(&self, path: &str, token: &str, body: &Value) -> u16 {
        let bearer = format!("Authorization: Bearer {token}");
        http_post_with(&format!("{}{path}", self.service), &[&bearer], &body.to_string()).await.unwrap().0
    }
    /// What a submitter does at this service.
    async fn work(&self, name: &str, token: &str) -> u16 {
        match name {
            "orchestrator" => self.post("/v1/jobs", token, &json!({"tool": "echo"})).await,
            "broadcaster" => self.get("/v1/endpoints", token).await,
            _ => self.post("/v1/markers", token, &json!({"site": "s", "title": "t", "coordinates": [1, 2]})).await,
        }
    }
}

#[test]
fn every_service_that_reads_the_file_of_tokens_mounts_it() {
    let Some(()) = require("kubectl") else { return };
    for name in crate::manifests::OVERLAYS {
        let objects: Vec<Object> = overlay(name);
        for workload in objects.iter().filter(|o| o.kind() == "Deployment" && o.text("/metadata/name") != "topology") {
            let container = &containers(workload)[0];
            let image = container["image"].as_str().unwrap();
            let Some((_, service)) = image.rsplit_once("agentforge/") else { continue };
            let program = cargo_bin(&format!("agentforge-{}", service.split([':', '@']).next().unwrap()));
            let help = Command::new(program).arg("--help").output().unwrap();
            let reads = String::from_utf8_lossy(&help.stdout).contains("ACCESS_TOKENS_FILE");
            let variable = list(&container["env"]).iter().find(|v| v["name"] == "ACCESS_TOKENS_FILE");
            let path = variable.map(|v| v["value"].as_str().unwrap()).unwrap_or_default();
            let from = secret_of_file(workload, container, path);
            assert_eq!(from, reads.then_some(("access-tokens", "tokens")), "{name}: {}", workload.name());
            // A file that is mounted by its own path never changes.
            let mounts = list(&container["volumeMounts"]).iter();
            assert!(mounts.clone().all(|mount| mount.get("subPath").is_none()), "{name}: {}", workload.name());
        }
        let readers = SERVICES.iter().filter(|service| {
            crate::manifests::seek(&objects, "Deployment", service)
                .is_some_and(|_| environment_of(&objects, service).contains_key("ACCESS_TOKENS_FILE"))
        });
        assert!(readers.count() > 0, "{name}");
    }
}

#[test]
fn every_service_behind_the_console_mounts_its_public_keys() {
    let Some(()) = require("kubectl") else { return };
    for name in crate::manifests::OVERLAYS {
        let objects: Vec<Object> = overlay(name);
        for service in SERVICES {
            let Some(workload) = crate::manifests::seek(&objects, "Deployment", service) else { continue };
            let container = &containers(workload)[0];
            let variable = list(&container["env"]).iter().find(|v| v["name"] == "ACCESS_CONSOLE_KEYS");
            let path = variable.map(|v| v["value"].as_str().unwrap()).unwrap_or_default();
            assert_eq!(
                secret_of_file(workload, container, path),
                Some(("console-keys", "keys.json")),
                "{name}: {service}"
            );
        }
        let console = crate::manifests::find(&objects, "Deployment", CONSOLE);
        let container = &containers(console)[0];
        let variable = list(&container["env"]).iter().find(|v| v["name"] == "CONSOLE_SIGNING_KEY_FILE").unwrap();
        let from = secret_of_file(console, container, variable["value"].as_str().unwrap());
        assert_eq!(from, Some(("console-signing", "keys.pem")), "{name}");
    }
}

/// What the console shows to a service about a user: a token that its key signs.
fn word_of_the_console(key: &str, kid: &str, role: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (pem, text, signature) = (dir.path().join("key.pem"), dir.path().join("text"), dir.path().join("signature"));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = json!({"iss": "agentforge-console", "aud": "agentforge", "sub": "alice", "roles": [role], "scope": "*",
        "iat": now, "exp": now + 60});
    let part = |value: Value| url_safe(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(json!({"alg": "EdDSA", "typ": "JWT", "kid": kid})), part(claims));
    std::fs::write(&pem, key).unwrap();
    std::fs::write(&text, &signed).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(&pem).arg("-in").arg(&text).arg("-out").arg(&signature);
    assert!(openssl.status().unwrap().success());
    format!("{signed}.{}", url_safe(&std::fs::read(&signature).unwrap()))
}

/// Base 64 with the alphabet of URLs and nothing behind.
fn url_safe(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().chain([0, 0].iter()).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let digits = (0..=three.len()).map(|n| ALPHABET[(bits >> (18 - 6 * n) & 63) as usize] as char);
        text.extend(digits);
    }
    text
}

#[tokio::test]
async fn the_consoles_word_is_taken_with_the_keys_for_a_start() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (_, file) = made();
    let stage = Stage::start("## Add a token", &file).await;
    let (made, other) = (secrets(), openssl_key());
    let (key, keys) = (&made["console-signing"]["keys.pem"], &made["console-keys"]["keys.json"]);
    let keys: Value = serde_json::from_str(keys).unwrap();
    let kid = keys["keys"][0]["kid"].as_str().unwrap();
    let (operator, viewer) = (word_of_the_console(key, kid, "operator"), word_of_the_console(key, kid, "viewer"));
    let wrong = word_of_the_console(&other, kid, "operator");
    let orchestrator = stage.caller("orchestrator");
    assert_eq!(orchestrator.work("orchestrator", &operator).await, 202);
    assert_eq!(orchestrator.get("/v1/jobs", &viewer).await, 200);
    assert_eq!(orchestrator.work("orchestrator", &viewer).await, 403);
    assert_eq!(orchestrator.get("/v1/jobs", &wrong).await, 401);
    assert_eq!(stage.caller("broadcaster").get("/v1/endpoints", &operator).await, 200);
    assert_eq!(stage.caller("tactical-api").work("tactical-api", &operator).await, 201);
}

/// A key that no Secret has.
fn openssl_key() -> String {
    let out = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test]
async fn the_tokens_for_a_start_do_what_their_roles_say() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (tokens, file) = made();
    let mut stage = Stage::start("## Add a token", &file).await;
    let [ops, alertmanager, ci] = ["ops", "alertmanager", "ci"].map(|name| tokens[name].as_str());
    let [orchestrator, broadcaster, tactical] = SERVICES.map(|name| stage.caller(name));
    let alert = json!({"version": "4", "alerts": [{"status": "firing", "labels": {"alertname": "A", "severity": "info"},
        "annotations": {}, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "a"}]});
    let found = [
        orchestrator.get("/v1/audit", ops).await,
        orchestrator.get("/v1/audit", ci).await,
        orchestrator.work("orchestrator", ci).await,
        orchestrator.get("/v1/jobs", alertmanager).await,
        broadcaster.post("/v1/alerts", alertmanager, &alert).await,
        broadcaster.get("/v1/endpoints", alertmanager).await,
        broadcaster.get("/v1/endpoints", ops).await,
        tactical.work("tactical-api", ci).await,
    ];
    assert_eq!(found, [200, 403, 202, 403, 200, 403, 200, 201]);
    let refused = tactical.work("tactical-api", alertmanager).await;
    assert!([401, 403].contains(&refused), "{refused}");
    // The page's command adds one that reads.
    stage.page.step();
    stage.page.step();
    let before = stage.reads();
    let told = stage.page.step();
    let added = told.lines().find(|line| line.starts_with("af_")).expect("the new token");
    stage.is_read(&before).await;
    let found = [orchestrator.get("/v1/jobs", added).await, orchestrator.work("orchestrator", added).await];
    assert_eq!((found, stage.page.left()), ([200, 403], 0));
}

/// One caller of every service, who never pauses for long: how often it was let in, and its refusals.
#[derive(Default)]
struct Seen {
    let_in: usize,
    refused: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_added_rotated_and_ended_under_load() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (tokens, file) = made();
    let mut stage = Stage::start("## Rotate a token", &file).await;
    let old = tokens["ci"].clone();
    let (token, stop) = (Arc::new(Mutex::new(old.clone())), Arc::new(AtomicBool::new(false)));
    let seen = Arc::<Mutex<Seen>>::default();
    let callers = SERVICES.map(|name| {
        let (caller, token, stop, seen) = (stage.caller(name), token.clone(), stop.clone(), seen.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let bearer = token.lock().unwrap().clone();
                let status = caller.work(name, &bearer).await;
                {
                    let mut seen = seen.lock().unwrap();
                    seen.let_in += 1;
                    if status >= 300 {
                        seen.refused.push(format!("{name} {status}"));
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    });
    let more = async || {
        let goal = seen.lock().unwrap().let_in + 100;
        eventually(WAIT, "calls are answered", || async {
            let now = seen.lock().unwrap().let_in;
            if now >= goal { Ok(()) } else { Err(now) }
        })
        .await;
    };
    more().await;
    stage.page.step();
    // 1. The new token counts too.
    let before = stage.reads();
    stage.page.step();
    stage.is_read(&before).await;
    more().await;
    // 2. Its caller gets it.
    let new = stage.page.step().trim().to_owned();
    new.clone_into(&mut token.lock().unwrap());
    more().await;
    // 3. The old one ends.
    let before = stage.reads();
    stage.page.step();
    stage.is_read(&before).await;
    for name in SERVICES {
        assert_eq!(stage.caller(name).work(name, &old).await, 401, "{name} refuses the old token");
    }
    more().await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(stage.page.left(), 0, "every command of the page was run");
    let seen = seen.lock().unwrap();
    assert!(seen.refused.is_empty(), "{} of {}: {:?}", seen.refused.len(), seen.let_in, seen.refused);
}

//! `agentforge site`: what it writes is what a hub's gate and a site's server start with, and only its owner can read it.

use super::support::{SOON, agentforge};
use agentforge_harness::{Gate, NatsOptions, NatsServer, Proc, eventually, free_port, program, require, with_gate};
use async_nats::{ConnectOptions, jetstream};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

struct Desk {
    dir: TempDir,
    accounts: String,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let accounts = dir.path().join("sites.conf").to_string_lossy().into_owned();
        Self { dir, accounts }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn add(&self, name: &str, hub: &str) -> super::support::Said {
        let out = self.folder(name).to_string_lossy().into_owned();
        agentforge(["site", "add", name, "--hub", hub, "--accounts", &self.accounts, "--out", &out, "--json"])
    }

    fn revoke(&self, name: &str) -> super::support::Said {
        agentforge(["site", "revoke", name, "--accounts", &self.accounts])
    }
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        found.push(entry.path());
        if entry.path().is_dir() {
            walk(&entry.path(), found);
        }
    }
}

#[test]
fn a_name_is_given_once_and_secrets_are_for_their_owner_alone() {
    let desk = Desk::new();
    let added = desk.add("pier-7", "tls://hub.example").ok();
    let key = added["public_key"].as_str().unwrap().to_owned();
    assert!(fs::read_to_string(&desk.accounts).unwrap().contains(&key));
    let mut paths = vec![desk.folder("pier-7")];
    walk(&desk.folder("pier-7"), &mut paths);
    assert!(paths.len() > 8, "{paths:?}");
    for path in &paths {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    let seed = fs::read_to_string(desk.folder("pier-7").join("nats-site/seed.conf")).unwrap();
    let seed = seed.trim().strip_prefix("nkey: SU").unwrap();
    assert!(!fs::read_to_string(&desk.accounts).unwrap().contains(seed), "the hub has no secret");

    // Twice, under another folder, and over a folder that exists: refused, and nothing is changed.
    let before = fs::read_to_string(&desk.accounts).unwrap();
    let elsewhere = desk.folder("elsewhere").to_string_lossy().into_owned();
    let again = ["site", "add", "pier-7", "--hub", "tls://hub", "--accounts", &desk.accounts, "--out", &elsewhere];
    let said = agentforge(again);
    assert!(said.code == 1 && said.err.contains("pier-7 exists"), "{}", said.err);
    assert!(!desk.folder("elsewhere").exists());
    fs::create_dir(desk.folder("dock-1")).unwrap();
    let said = desk.add("dock-1", "tls://hub");
    assert!(said.code == 1 && said.err.contains("--out"), "{}", said.err);
    assert_eq!(fs::read_to_string(&desk.accounts).unwrap(), before);
    assert_eq!(fs::read_dir(desk.dir.path()).unwrap().count(), 3, "no file of a change that was not made is left");

    fs::remove_dir(desk.folder("dock-1")).unwrap();
    desk.add("dock-1", "nats-leaf://10.1.2.3:7000").ok();
    let listed = agentforge(["site", "list", "--accounts", &desk.accounts]);
    assert!(listed.code == 0 && listed.out.contains("dock-1") && listed.out.contains(&key), "{}", listed.out);
    assert_eq!(desk.revoke("pier-7").code, 0);
    let said = desk.revoke("pier-7");
    assert!(said.code == 1 && said.err.contains("there is no site pier-7"), "{}", said.err);
    assert!(!fs::read_to_string(&desk.accounts).unwrap().contains(&key));
    // A new life of the name has a new credential.
    fs::remove_dir_all(desk.folder("pier-7")).unwrap();
    assert_ne!(desk.add("pier-7", "tls://hub").ok()["public_key"].as_str(), Some(&*key));
}

#[test]
fn what_is_not_a_site_is_refused_with_the_reason() {
    let desk = Desk::new();
    for (name, hub, words) in [
        ("a.b", "tls://hub", "is not valid"),
        ("*", "tls://hub", "is not valid"),
        ("pier_7", "tls://hub", "is not valid"),
        ("pier", "nats://hub", "scheme nats"),
        ("pier", "tls://user:secret@hub", "credentials"),
        ("pier", "hub", "expected tls://"),
    ] {
        let said = desk.add(name, hub);
        assert!(said.code == 2 && said.err.contains(words), "{name} {hub}: {}", said.err);
    }
    let said = desk.add("hub", "tls://hub");
    assert!(said.code == 1 && said.err.contains("the hub's own name"), "{}", said.err);
    fs::write(&desk.accounts, "\"SITE-a-X\" {\n}\n").unwrap();
    let said = desk.add("pier", "tls://hub");
    assert!(said.code == 1 && said.err.contains("site a has no key"), "{}", said.err);
    assert_eq!(fs::read_to_string(&desk.accounts).unwrap(), "\"SITE-a-X\" {\n}\n");
    fs::remove_file(&desk.accounts).unwrap();
    fs::write(desk.dir.path().join(".sites.conf.new"), "").unwrap();
    let said = desk.add("pier", "tls://hub");
    assert!(said.code == 1 && said.err.contains("interrupted"), "{}", said.err);
    assert_eq!(agentforge(["site", "list", "--accounts", &desk.accounts]).code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_starts_from_its_folder_and_delivers_until_it_is_revoked() {
    let Some(()) = require("nats-server") else { return };
    let desk = Desk::new();
    let (hub_port, leaf_nodes, client, monitor) = (free_port(), free_port(), free_port(), free_port());
    let at = format!("127.0.0.1:{leaf_nodes}");
    desk.add("pier-7", &format!("nats-leaf://{at}")).ok();
    let hub = NatsServer::start(with_gate(NatsOptions::default(), hub_port)).await;
    let js = jetstream::new(async_nats::connect(hub.url()).await.unwrap());
    let subjects = vec!["edge.evidence.>".to_owned()];
    js.create_stream(jetstream::stream::Config { name: "edge_evidence".into(), subjects, ..Default::default() })
        .await
        .unwrap();
    let accounts = fs::read_to_string(&desk.accounts).unwrap();
    let mut gate = Gate::start(hub_port, leaf_nodes, &at, &accounts, NatsOptions::default()).await;

    let (config, port, http) = (desk.folder("pier-7").join("nats.conf"), client.to_string(), monitor.to_string());
    // Its store is in the folder that it is started in, and a test starts it in another.
    let text = fs::read_to_string(&config).unwrap();
    let here = text.replace("store_dir: \"js\"", &format!("store_dir: \"{}\"", desk.folder("js").display()));
    assert_ne!(here, text);
    fs::write(&config, here).unwrap();
    let args = ["-c", config.to_str().unwrap(), "-p", &port, "-m", &http];
    let _server = Proc::builder(program("nats-server").unwrap()).args(args).start();
    let env = fs::read_to_string(desk.folder("pier-7").join("services/syncdaemon.env")).unwrap();
    let env: BTreeMap<&str, &str> = env.lines().filter_map(|line| line.split_once('=')).collect();
    let login = || {
        ConnectOptions::with_user_and_password(env["NATS_USER"].into(), env["NATS_PASSWORD"].into())
            .custom_inbox_prefix("_INBOX.syncdaemon")
    };
    let site = eventually(SOON, "the site's server serves", || async {
        login().connect(format!("127.0.0.1:{client}")).await.map_err(|e| e.to_string())
    })
    .await;
    assert!(async_nats::connect(format!("127.0.0.1:{client}")).await.is_err(), "nobody gets in without a user");
    eventually(SOON, "the hub acknowledges", || async {
        let answer = site.request("edge.evidence.pier-7.aa", "x".into()).await.map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        if text.contains("\"domain\":\"hub\"") { Ok(()) } else { Err(text) }
    })
    .await;
    assert!(site.request("edge.evidence.dock-1.aa", "x".into()).await.is_err(), "as another it is heard by nobody");

    assert_eq!(desk.revoke("pier-7").code, 0);
    gate.set_accounts(&fs::read_to_string(&desk.accounts).unwrap()).await;
    eventually(SOON, "the link is cut", || async {
        site.request("edge.evidence.pier-7.bb", "x".into()).await.is_err()
    })
    .await;
}

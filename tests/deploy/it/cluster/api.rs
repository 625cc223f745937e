//! A Kubernetes API of a test's own, and kubectl as one of its users.
//!
//! It listens on loopback, keeps what it stores in a temporary folder, and ends with the test, before its etcd.

use super::{Folders, definitions};
use crate::manifests::Object;
use agentforge_harness::{Proc, eventually, free_port, program};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A cold start on a busy machine.
const START: Duration = Duration::from_secs(120);
/// The password of `system:masters`, in a file that goes with the test.
const TOKEN: &str = "of-this-test-only";

pub struct Api {
    // Fields are dropped in this order: the API server first.
    server: Proc,
    _etcd: Proc,
    dir: tempfile::TempDir,
}

/// What kubectl did.
pub struct Said {
    pub is_done: bool,
    pub out: String,
    pub err: String,
}

/// Who asks: a user and groups.
#[derive(Clone, Copy)]
pub struct User(pub &'static str, pub &'static [&'static str]);

impl Said {
    /// What it printed; fails when it failed, and where it warned.
    #[track_caller]
    pub fn ok(self, what: &str) -> String {
        assert!(self.is_done && !self.err.contains("Warning"), "{what}: {}", self.err);
        self.out
    }

    #[track_caller]
    pub fn refused(&self, what: &str, told: &str) {
        assert!(!self.is_done, "{what} was done:\n{}", self.out);
        assert!(self.err.contains(told), "{what}: expected {told:?}:\n{}", self.err);
    }
}

impl Api {
    /// Starts one with the definitions of all kinds that the manifests have.
    pub async fn start(folders: &Folders) -> Self {
        let dir = tempfile::Builder::new().prefix("agentforge-cluster-").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (store, peers) = (loopback(), loopback());
        let etcd = Proc::builder(folders.servers.join("etcd"))
            .args([
                format!("--data-dir={}", path("etcd")),
                format!("--listen-client-urls={store}"),
                format!("--advertise-client-urls={store}"),
                format!("--listen-peer-urls={peers}"),
                format!("--initial-advertise-peer-urls={peers}"),
                format!("--initial-cluster=default={peers}"),
            ])
            // Nothing of a test outlives a crash of the machine.
            .args(["--unsafe-no-fsync", "--log-level=warn"])
            .start();
        let key = rcgen::KeyPair::generate().unwrap();
        write(&path("accounts.key"), &key.serialize_pem());
        write(&path("accounts.pub"), &key.public_key_pem());
        write(&path("tokens.csv"), &format!("{TOKEN},admin,admin,\"system:masters\"\n"));
        let port = free_port();
        let server = Proc::builder(folders.servers.join("kube-apiserver"))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--authorization-mode=RBAC"])
            .args(["--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16"])
            // As clusters have it: pods that are not restricted are Pod Security's to refuse.
            .args(["--service-account-issuer=https://kubernetes.default.svc", "--allow-privileged=true"])
            .args([
                format!("--secure-port={port}"),
                format!("--cert-dir={}", path("certificates")),
                format!("--etcd-servers={store}"),
                format!("--token-auth-file={}", path("tokens.csv")),
                format!("--service-account-signing-key-file={}", path("accounts.key")),
                format!("--service-account-key-file={}", path("accounts.pub")),
            ])
            .start();
        let context = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": path("certificates/apiserver.crt"),
            }}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        write(&path("kubeconfig"), &context.to_string());
        let mut api = Self { server, _etcd: etcd, dir };
        eventually(START, "the Kubernetes API is ready", || {
            assert!(api.server.is_running(), "it ended at its start:\n{}", api.server.log());
            let said = api.kubectl(&["get", "--raw", "/readyz"], "");
            async move { if said.is_done { Ok(()) } else { Err(said.err) } }
        })
        .await;
        let all = definitions::all(&folders.tools.join("crds"));
        api.kubectl(&["apply", "--server-side", "-f", "-"], &all).ok("the definitions");
        // `kubectl wait` fails on one that has no condition yet.
        let served = "-o=jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type==\"Established\")].status} {end}";
        eventually(START, "the definitions are served", || {
            let said = api.kubectl(&["get", "crd", served], "");
            let is_served = said.is_done && said.out.split_whitespace().all(|one| one.ends_with("=True"));
            async move { if is_served { Ok(()) } else { Err(format!("{}{}", said.out, said.err)) } }
        })
        .await;
        api
    }

    /// A file of it, such as `kubeconfig`.
    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl(&self, args: &[&str], input: &str) -> Said {
        let mut child = Command::new(program("kubectl").unwrap())
            .args(args)
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            .env("KUBECACHEDIR", self.dir.path().join("discovery"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.as_bytes().to_vec();
        // It may end before it has read all, and says why.
        let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let out = child.wait_with_output().unwrap();
        feed.join().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { is_done: out.status.success(), out: text(&out.stdout), err: text(&out.stderr) }
    }

    /// Runs kubectl as somebody else.
    pub fn kubectl_as(&self, who: User, args: &[&str], input: &str) -> Said {
        let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        all.push(format!("--as={}", who.0));
        all.extend(who.1.iter().map(|group| format!("--as-group={group}")));
        self.kubectl(&all.iter().map(String::as_str).collect::<Vec<_>>(), input)
    }

    /// Applies objects on the server under the name of a manager; what is there afterwards.
    pub fn apply(&self, manager: &str, objects: &[Object]) -> Result<Vec<Object>, String> {
        let manager = format!("--field-manager={manager}");
        let args = ["apply", "--server-side", &manager, "--show-managed-fields", "-o", "json", "-f", "-"];
        let said = self.kubectl(&args, &stream(objects));
        if !said.is_done || said.err.contains("Warning") {
            return Err(said.err);
        }
        let found: Value = serde_json::from_str(&said.out).map_err(|e| e.to_string())?;
        Ok(match found["items"].as_array() {
            Some(items) => items.iter().cloned().map(Object).collect(),
            None => vec![Object(found)],
        })
    }

    /// Makes a namespace that no manifest has.
    pub fn make_namespace(&self, name: &str) {
        self.kubectl(&["create", "namespace", name], "").ok(name);
    }
}

/// Objects as kubectl reads them.
pub fn stream(objects: &[Object]) -> String {
    objects.iter().map(|object| format!("---\n{}\n", object.0)).collect()
}

fn loopback() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

fn write(path: &str, text: &str) {
    std::fs::write(Path::new(path), text).unwrap();
}

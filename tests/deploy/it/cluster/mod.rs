//! The manifests on a real Kubernetes API: kube-apiserver and etcd; where pods matter, with controllers, a scheduler and
//! nodes without containers as well.
//!
//! `scripts/control-plane` finds them and builds nothing: without them these tests are skipped with the reason, with
//! `CI=true` too, because a build takes minutes. `make test-cluster` builds first, and then a missing one fails. Tests
//! with pods take minutes each, so only it and a soak run them.

mod api;
mod apply;
mod branches;
mod controllers;
mod definitions;
mod protection;
mod quotas;
mod removal;
mod rollouts;

use agentforge_harness::require;
use std::path::PathBuf;
use std::process::Command;

/// Where the servers are, and what else the tests need.
pub struct Folders {
    servers: PathBuf,
    tools: PathBuf,
}

/// The folders, or `None` where nothing is built; says why.
fn folders() -> Option<Folders> {
    require("kubectl")?;
    let found = ask("--path").and_then(|servers| Ok(Folders { servers, tools: ask("--tools")? }));
    found.map_err(skip).ok()
}

/// As [`folders`], with the folder of what makes pods and runs them.
fn folders_with_controllers() -> Option<(Folders, PathBuf)> {
    if std::env::var_os("AGENTFORGE_CLUSTER").is_none() && !std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") {
        skip("it takes minutes: make test-cluster and make soak run it".to_owned());
        return None;
    }
    let controllers = ask("--controllers").map_err(skip).ok()?;
    Some((folders()?, controllers))
}

fn ask(what: &str) -> Result<PathBuf, String> {
    let script = crate::manifests::root().join("scripts/control-plane");
    let out = Command::new(script).arg(what).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout).into()) } else { Err(text(&out.stderr)) }
}

fn skip(reason: String) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    assert!(std::env::var_os("AGENTFORGE_CLUSTER").is_none(), "{test}: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
}

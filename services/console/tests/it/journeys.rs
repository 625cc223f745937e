//! Chromium walks through the pages as people do, with everything that `agentforge dev` starts.
//!
//! The journeys are in web/tests/journeys. On every page they hold axe's rules, the policy of the page, and its width.

use crate::support::SOON;
use agentforge_harness::{Proc, cargo_bin, eventually, program, require};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const USER: &str = "ada";
const PASSWORD: &str = "correct horse battery";

/// Everything that the pages show, and somebody who may do everything.
struct World {
    url: String,
    /// What the syncdaemon delivers.
    replay: PathBuf,
    /// The process of the NATS server.
    nats: String,
    _dev: Proc,
    _data: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (home, ready) = (data.path().join("data"), data.path().join("ready.json"));
        let path = |path: &Path| path.display().to_string();
        let dev = Proc::builder(cargo_bin("agentforge"))
            .args(["dev", "--port-base", "0", "--data-dir", &path(&home), "--ready-file", &path(&ready)])
            .env("AGENTFORGE_NATS_SERVER", path(&program("nats-server").unwrap()))
            .start();
        eventually(SOON, "everything is ready", async || ready.is_file()).await;
        let ready: Value = serde_json::from_str(&fs::read_to_string(&ready).unwrap()).unwrap();
        let url = ready["services"]["console"]["http"].as_str().unwrap().to_owned();
        add_user(&home);
        Self { url, replay: home.join("replay"), nats: ready["nats"]["pid"].to_string(), _dev: dev, _data: data }
    }

    /// Runs journeys; what they print is printed.
    async fn walk(&self, options: &[&str]) {
        let mut command = node();
        command.args(["tests/journeys/run.mjs", "--url", &self.url, "--user", USER, "--password", PASSWORD]);
        command
            .args(["--nats", &self.nats])
            .arg("--replay")
            .arg(&self.replay)
            .arg("--out")
            .arg(pictures())
            .args(options);
        let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        eprintln!("{said}");
        assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    }
}

fn add_user(home: &Path) {
    let mut command = Command::new(cargo_bin("agentforge"));
    command.args(["user", "add", USER, "--role", "admin", "--data-dir"]).arg(home);
    let mut adding = command.stdin(Stdio::piped()).spawn().unwrap();
    writeln!(adding.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(adding.wait().unwrap().success());
}

/// Where pictures of the pages are kept: next to what was built.
fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("console-pages")
}

fn node() -> Command {
    let mut command = Command::new(program("node").unwrap());
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("web"));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn people_walk_through_the_pages() {
    let (Some(()), Some(()), Some(())) = (require("console-pages"), require("chromium"), require("nats-server")) else {
        return;
    };
    let is_soak = std::env::var_os("AGENTFORGE_SOAK").is_some();
    let short = ["--only", "job", "--only", "viewer", "--only", "login"];
    World::start().await.walk(if is_soak { &["--all"] } else { &short }).await;
}

#[test]
fn types_and_units_of_the_pages_hold() {
    let Some(()) = require("console-pages") else { return };
    for arguments in [
        ["node_modules/svelte-check/bin/svelte-check", "--fail-on-warnings"],
        ["node_modules/vitest/vitest.mjs", "run"],
    ] {
        let out = node().args(arguments).output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

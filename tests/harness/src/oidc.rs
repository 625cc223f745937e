//! A real OpenID provider (node-oidc-provider) with keys and clients of its own; `tests/harness/oidc/provider.mjs` has them.

use crate::{
    child::{ChildHandle, Signal, Spec},
    eventually, provided,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// A cold start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A provider on 127.0.0.1. It ends when it is dropped.
pub struct OidcProvider {
    child: ChildHandle,
    issuer: String,
    modules: PathBuf,
    _dir: TempDir,
}

impl OidcProvider {
    /// Starts one and waits until it serves.
    ///
    /// # Panics
    /// When there is none to start (ask [`crate::require`] first) or it does not come up.
    pub async fn start() -> Self {
        let modules = provided::program("oidc-provider").unwrap_or_else(|e| panic!("{e}"));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut spec = Spec::new("node", dir.path().join("log")).args([script().as_str(), "0"]);
        spec.envs.push(("OIDC_MODULES".into(), modules.display().to_string()));
        let mut child = spec.start().unwrap_or_else(|e| panic!("start node: {e}"));
        let log = dir.path().join("log");
        let issuer = eventually(START, "the OpenID provider serves", || {
            assert!(child.try_status().is_none(), "it ended at its start:\n{}", child.log());
            let issuer = line(&log, "http://");
            async move { issuer }
        })
        .await;
        Self { child, issuer, modules, _dir: dir }
    }

    /// Its URL, as `iss` of its tokens has it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token of a program, by client credentials.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn program_token(&self, client: &str) -> String {
        self.ask(&["token", &self.issuer, client])
    }

    /// A token of a person, by the code flow with PKCE.
    ///
    /// # Panics
    /// When a step is refused.
    pub fn person_token(&self) -> String {
        self.ask(&["login", &self.issuer])
    }

    /// From now on it signs with another key, and does not know the one before.
    pub async fn rotate(&mut self) {
        let log = self._dir.path().join("log");
        let before = lines(&log, "rotated");
        self.child.signal(Signal::USR1);
        eventually(START, "the key is rotated", || {
            let now = lines(&log, "rotated");
            async move { now > before }
        })
        .await;
    }

    fn ask(&self, args: &[&str]) -> String {
        let mut command = Command::new("node");
        command.arg(script()).args(args).env("OIDC_MODULES", &self.modules);
        let out = command.output().expect("node starts");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
}

fn script() -> String {
    format!("{}/oidc/provider.mjs", env!("CARGO_MANIFEST_DIR"))
}

fn line(log: &Path, start: &str) -> Option<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().find(|line| line.starts_with(start)).map(str::to_owned)
}

fn lines(log: &Path, start: &str) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().filter(|line| line.starts_with(start)).count()
}

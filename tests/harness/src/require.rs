//! What happens when a server that a test needs is not on this machine.
//!
//! On a user's machine the test is skipped with a message; with `CI=true` it fails, so that a pipeline can never be
//! green by skipping.

use crate::{alertmanager, nats, postgres, prometheus};

/// `Some(())` when `server` (`nats-server`, `postgres`, `prometheus` or `alertmanager`), or the program `kubectl`,
/// `buildah`, `chromium` or `pgbouncer`, can be started here.
/// Otherwise prints `SKIPPED <test>: <reason>` and returns `None`:
///
/// ```no_run
/// let Some(()) = agentforge_harness::require("postgres") else { return };
/// ```
///
/// # Panics
/// When the environment says `CI=true` (or `1`), and for a name it does not know.
#[must_use = "a test must return when the server is missing"]
pub fn require(server: &str) -> Option<()> {
    let reason = match server {
        "nats-server" => nats::binary().err(),
        "postgres" => postgres::binaries().err(),
        "kubectl" => crate::program("kubectl").err(),
        "chromium" => crate::provided::on_path("chromium").err(),
        "pgbouncer" => crate::provided::on_path("pgbouncer").err(),
        "buildah" => crate::provided::on_path("buildah").err(),
        "prometheus" => prometheus::binaries().err(),
        "alertmanager" => alertmanager::binaries().err(),
        other => panic!("require() knows nats-server, postgres, prometheus and alertmanager, not {other:?}"),
    };
    told(server, reason)
}

/// As [`require`], for one version of nats-server.
///
/// # Panics
/// As [`require`].
#[must_use = "a test must return when the server is missing"]
pub fn require_nats(version: &str) -> Option<()> {
    told(&format!("nats-server {version}"), crate::provided::nats_server_of(version).err())
}

fn told(server: &str, reason: Option<String>) -> Option<()> {
    let Some(reason) = reason else { return Some(()) };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test");
    let ci = std::env::var("CI").is_ok_and(|v| v.eq_ignore_ascii_case("true") || v == "1");
    assert!(!ci, "{test} needs {server}, and CI=true forbids skipping: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
    None
}

//! What happens when a server that a test needs is not on this machine, or the test may not do what it needs.
//!
//! On a user's machine the test is skipped with a message. With `CI=true` a missing server fails it, so that a pipeline
//! can never be green by skipping. A missing right does not: no installation provides it, and pipelines of many forges
//! run without.

use crate::{alertmanager, nats, postgres, prometheus};
use std::process::Command;

/// `Some(())` when `server` (`nats-server`, `postgres`, `prometheus` or `alertmanager`), or the program `kubectl`,
/// `console-pages`, `buildah`, `chromium`, `pgbouncer` or `setpriv`, can be started here.
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
        "oidc-provider" => crate::provided::on_path("node").and_then(|_| crate::program("oidc-provider")).err(),
        "console-pages" => crate::program("console-pages").err(),
        "kubectl" => crate::program("kubectl").err(),
        "nginx" => crate::program("nginx").err(),
        "hcl" => crate::program("hcl").err(),
        "chromium" => crate::provided::on_path("chromium").err(),
        "pgbouncer" => crate::provided::on_path("pgbouncer").err(),
        "setpriv" => crate::provided::on_path("setpriv").err(),
        "buildah" => crate::provided::on_path("buildah").err(),
        "prometheus" => prometheus::binaries().err(),
        "python3-jsonschema" => crate::provided::python_with("jsonschema").err(),
        "python3-nacl" => crate::provided::python_with("nacl").err(),
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

/// What a test must be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To act as root: change owners, become another user.
    Root,
    /// To make files immutable in the directory for temporary files.
    Immutable,
    /// To mount a file system in a namespace of its own.
    Mount,
    /// To be without a network in a namespace of its own.
    Offline,
    /// To confine a process to files and signals: Linux 6.12 or newer.
    Landlock,
}

/// `Some(())` when this process has the right. Otherwise prints `SKIPPED <test>: <reason>` and returns `None`, with
/// `CI=true` as well.
#[must_use = "a test must return when it may not do what it needs"]
pub fn require_right(right: Right) -> Option<()> {
    let reason = match right {
        Right::Root if rustix::process::geteuid().is_root() => return Some(()),
        Right::Root => "it needs root".to_owned(),
        Right::Immutable => match try_in_tempdir(r#"touch "$1" && chattr +i "$1" && chattr -i "$1""#) {
            Ok(()) => return Some(()),
            Err(why) => format!("no file can be made immutable here: {why}"),
        },
        Right::Mount => match try_in_tempdir(r#"mkdir "$1" && unshare -rm mount -t tmpfs -o size=1m tmpfs "$1""#) {
            Ok(()) => return Some(()),
            Err(why) => format!("no file system can be mounted here: {why}"),
        },
        Right::Offline => match try_in_tempdir("unshare -n true || unshare -rn true") {
            Ok(()) => return Some(()),
            Err(why) => format!("no process can be without a network here: {why}"),
        },
        Right::Landlock => {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            let mut numbers = release.split('.').map_while(|n| n.parse::<u32>().ok());
            if (numbers.next(), numbers.next()) >= (Some(6), Some(12)) {
                return Some(());
            }
            format!("it needs Linux 6.12, this is {}", release.trim())
        }
    };
    eprintln!("SKIPPED {}: {reason}", test_name());
    None
}

/// Runs a line of shell with the path of something that does not exist yet; what it printed when it failed.
fn try_in_tempdir(line: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let out = Command::new("sh").args(["-c", line, "sh"]).arg(dir.path().join("probe")).output();
    let out = out.map_err(|e| e.to_string())?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()) }
}

fn test_name() -> String {
    std::thread::current().name().unwrap_or("test").to_owned()
}

fn told(server: &str, reason: Option<String>) -> Option<()> {
    let Some(reason) = reason else { return Some(()) };
    let test = test_name();
    let ci = std::env::var("CI").is_ok_and(|v| v.eq_ignore_ascii_case("true") || v == "1");
    assert!(!ci, "{test} needs {server}, and CI=true forbids skipping: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
    None
}

//! Finds a nats-server that is new enough: AGENTFORGE_NATS_SERVER, PATH, the cache of
//! `scripts/nats-server`, and at last that script, which provides the pinned one.

use agentforge_terminal::{Failure, Result};
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The oldest server whose JetStream has what is needed.
const MINIMUM: (u32, u32) = (2, 12);
/// Names a server to use.
const CHOSEN: &str = "AGENTFORGE_NATS_SERVER";
const SCRIPT: &str = "scripts/nats-server";

/// A server binary; blocks for as long as a download takes when there is none yet.
///
/// # Errors
/// There is none, with what to do.
pub fn nats_server() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os(CHOSEN).filter(|v| !v.is_empty()).map(PathBuf::from) {
        return match version(&chosen) {
            Some(found) if found >= MINIMUM => Ok(chosen),
            Some((major, minor)) => Err(refused(&chosen, &format!("is version {major}.{minor}"))),
            None => Err(refused(&chosen, "is not a NATS server that runs here")),
        };
    }
    let usable = |path: &PathBuf| version(path).is_some_and(|found| found >= MINIMUM);
    if let Some(found) = on_path().into_iter().chain(cached()).find(usable) {
        return Ok(found);
    }
    script().map_or_else(|| Err(missing()), |script| from_script(&script))
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::new(format!("{CHOSEN}={} {why}", path.display()))
        .hint(format!("name a nats-server of version {}.{} or newer, or unset it", MINIMUM.0, MINIMUM.1))
}

fn missing() -> Failure {
    Failure::new(format!("there is no nats-server {}.{} or newer", MINIMUM.0, MINIMUM.1)).code("no_nats_server").hint(format!(
        "put one on PATH, name it in {CHOSEN}, run {SCRIPT} --path in the repository once, or use a server that runs with --nats-url"
    ))
}

fn on_path() -> Vec<PathBuf> {
    let script = script().and_then(|s| s.canonicalize().ok());
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("nats-server"))
        // The script itself may be linked there; it is asked last, because it may download.
        .filter(|p| p.is_file() && p.canonicalize().ok() != script)
        .collect()
}

/// Newest first. The script puts only checked binaries there, each in one step.
fn cached() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    let Some(caches) = env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from).or(home) else {
        return Vec::new();
    };
    let folders = std::fs::read_dir(caches.join("agentforge/nats-server"));
    let mut found: Vec<PathBuf> = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("nats-server"))
        .filter(|p| p.is_file())
        .collect();
    found.sort();
    found.reverse();
    found
}

/// The script of the repository that this program or the shell is in.
fn script() -> Option<PathBuf> {
    let starts = [env::current_dir().ok(), env::current_exe().ok()];
    let folders = starts.iter().flatten().flat_map(|p| p.ancestors());
    folders.map(|dir| dir.join(SCRIPT)).find(|p| p.is_file())
}

fn from_script(script: &Path) -> Result<PathBuf> {
    let out = Command::new(script).arg("--path").stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let out = out.map_err(|e| Failure::new(format!("{} cannot be started: {e}", script.display())))?;
    let path = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
    if out.status.success() && path.is_file() { Ok(path) } else { Err(missing()) }
}

fn version(path: &Path) -> Option<(u32, u32)> {
    let out = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&out.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once("nats-server: v")?.1.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        assert_eq!(parse_version("nats-server: v2.14.0\n"), Some((2, 14)));
        assert_eq!(parse_version("nats-server: v2.9.25"), Some((2, 9)));
        assert!(parse_version("nats-server: v2.9.25").unwrap() < MINIMUM);
        for bad in ["", "v2.14.0", "nats-server: vx.y", "bash 5"] {
            assert_eq!(parse_version(bad), None, "{bad}");
        }
    }
}

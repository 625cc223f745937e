//! Takes up changes of the endpoints file. A broken one changes nothing and says why.
//!
//! Checks the content, not times: a mounted file of Kubernetes changes by the target of a link. Content is applied when
//! a second check finds it unchanged: the first part of a file that is being written may well be a valid file with
//! fewer endpoints. Files that `file:` refers to are part of the content: a secret is rotated in its own file.

use crate::{endpoints::reference, metrics::RELOADS, registry::Registry};
use agentforge_runtime::Gate;
use ring::digest::{SHA256, digest};
use std::{path::PathBuf, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A larger file is none.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Between two checks that must agree, at most.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// Looks until the stop. Without a file the endpoint of the environment may have values in files.
pub async fn watch(
    registry: Registry,
    path: Option<PathBuf>,
    gate: Gate,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let config = &registry.context().config;
    let mut contents = Contents::default();
    let mut pause = Duration::ZERO;
    // The first content was read with the settings; it is read once more, as it may have changed since.
    let mut is_first = true;
    gate.set(true, "read");
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let read = match &path {
            Some(path) => read(path).await,
            None => Ok(String::new()),
        };
        let seen = match &read {
            Ok(text) => {
                let files = config.referenced(text);
                let files = tokio::task::spawn_blocking(move || reference::fingerprint(&files)).await?;
                hex::encode(digest(&SHA256, text.as_bytes())) + &files
            }
            Err(problem) => problem.clone(),
        };
        let finding = contents.found(seen);
        pause = match finding {
            Finding::Settling => config.reload_interval.min(SETTLE_INTERVAL),
            Finding::Same | Finding::Changed => config.reload_interval,
        };
        if finding != Finding::Changed {
            continue;
        }
        match read.and_then(|text| config.endpoints(&text).map_err(|faults| faults.to_string())) {
            Ok(endpoints) => {
                let is_news = !is_first || endpoints != config.first_endpoints();
                registry.apply(endpoints);
                if is_news {
                    info!("endpoints file changed and applied");
                    RELOADS.inc(&["applied"]);
                }
                gate.set(true, "read");
            }
            Err(problem) => {
                warn!(problem, "the endpoints file cannot be applied; keeping the current endpoints");
                RELOADS.inc(&["refused"]);
                gate.set(false, format!("not taken up, the endpoints stay as they were: {problem}"));
            }
        }
        is_first = false;
    }
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// What was taken up last.
    Same,
    /// Something else than the check before.
    Settling,
    /// Something new, for the second time.
    Changed,
}

/// What the checks found, by their digests.
#[derive(Debug, Default)]
struct Contents {
    taken: Option<String>,
    before: Option<String>,
}

impl Contents {
    fn found(&mut self, seen: String) -> Finding {
        let is_settled = self.before.as_ref() == Some(&seen);
        if self.taken.as_ref() == Some(&seen) {
            self.before = Some(seen);
            return Finding::Same;
        }
        if is_settled {
            self.taken = Some(seen);
            return Finding::Changed;
        }
        self.before = Some(seen);
        Finding::Settling
    }
}

async fn read(path: &PathBuf) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{} has {size} bytes; at most {FILE_BYTES_MAX} are read", path.display()));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    if text.trim().is_empty() {
        Err(format!("{} is empty; to have no endpoints, write `endpoint = []`", path.display()))
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_taken_when_two_looks_agree_and_once() {
        use Finding::{Changed, Same, Settling};
        let mut contents = Contents::default();
        let seen = ["a", "a", "a", "ab", "abc", "abc", "abc", "", "abc", "abc", "a", "ab", "a", "a"];
        let expected = [
            Settling, Changed, Same, Settling, Settling, Changed, Same, Settling, Same, Same, Settling, Settling,
            Settling, Changed,
        ];
        assert_eq!(seen.map(|seen| contents.found(seen.to_owned())), expected);
    }
}

//! Takes up changes of the endpoints file. A broken one changes nothing and says why.
//! Checks the content, not times: a mounted file of Kubernetes changes by the target of a link. Content is applied when
//! a second check finds it unchanged: the first part of a file that is being written may well be a valid file with
//! fewer endpoints. Files that `file:` refers to are part of the content: a secret is rotated in its own file.

use crate::{endpoints::reference, metrics::RELOADS, registry::Fleet};
use agentforge_runtime::Gate;
use ring::digest::{SHA256, digest};
use std::{path::PathBuf, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A larger file is none.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// Between two checks that must agree, at most.
const SETTLE: Duration = Duration::from_millis(500);

/// Looks until the stop. Without a file the endpoint of the environment may have values in files.
pub async fn watch(
    fleet: Fleet,
    path: Option<PathBuf>,
    gate: Gate,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let config = &fleet.context().config;
    let mut looks = Looks::default();
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
        let look = looks.saw(seen);
        pause = match look {
            Look::Settling => config.reload_interval.min(SETTLE),
            Look::Same | Look::Changed => config.reload_interval,
        };
        if look != Look::Changed {
            continue;
        }
        match read.and_then(|text| config.endpoints(&text).map_err(|faults| faults.to_string())) {
            Ok(endpoints) => {
                let is_news = !is_first || endpoints != config.first_endpoints();
                fleet.apply(endpoints);
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
enum Look {
    /// What was taken up last.
    Same,
    /// Something else than the look before.
    Settling,
    /// Something new, for the second time.
    Changed,
}

/// What the looks found, by their sums.
#[derive(Debug, Default)]
struct Looks {
    taken: Option<String>,
    before: Option<String>,
}

impl Looks {
    fn saw(&mut self, seen: String) -> Look {
        let is_settled = self.before.as_ref() == Some(&seen);
        if self.taken.as_ref() == Some(&seen) {
            self.before = Some(seen);
            return Look::Same;
        }
        if is_settled {
            self.taken = Some(seen);
            return Look::Changed;
        }
        self.before = Some(seen);
        Look::Settling
    }
}

async fn read(path: &PathBuf) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > FILE_MAX_BYTES {
        return Err(format!("{} has {size} bytes; at most {FILE_MAX_BYTES} are read", path.display()));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    match text.trim().is_empty() {
        // What a write that was broken off leaves behind.
        true => Err(format!("{} is empty; to have no endpoints, write `endpoint = []`", path.display())),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_taken_when_two_looks_agree_and_once() {
        use Look::{Changed, Same, Settling};
        let mut looks = Looks::default();
        let seen = ["a", "a", "a", "ab", "abc", "abc", "abc", "", "abc", "abc", "a", "ab", "a", "a"];
        let expected = [
            Settling, Changed, Same, Settling, Settling, Changed, Same, Settling, Same, Same, Settling, Settling,
            Settling, Changed,
        ];
        assert_eq!(seen.map(|seen| looks.saw(seen.to_owned())), expected);
    }
}

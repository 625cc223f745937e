//! Takes up changes of the endpoints file. A broken one changes nothing and says why.
//!
//! Looks at the content, not at times: a mounted file of Kubernetes changes by the target of a link.

use crate::{fleet::Fleet, metrics::RELOADS};
use agentforge_runtime::Gate;
use ring::digest::{Digest, SHA256, digest};
use std::path::PathBuf;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A larger file is none.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// Looks until the stop.
pub async fn watch(fleet: Fleet, path: PathBuf, gate: Gate, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let config = &fleet.context().config;
    let mut tick = interval(config.reload_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first content was read with the settings; it is read once more, as it may have changed since.
    let mut last: Option<Vec<u8>> = None;
    gate.set(true, "read");
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let read = read(&path).await;
        let seen = read.as_ref().map_or_else(String::clone, |text| hex::encode(sum(text)));
        if last.as_deref() == Some(seen.as_bytes()) {
            continue;
        }
        let is_first = last.replace(seen.into_bytes()).is_none();
        match read.and_then(|text| config.endpoints(&text).map_err(|faults| faults.to_string())) {
            Ok(endpoints) => {
                fleet.apply(endpoints);
                if !is_first {
                    info!("the endpoints file changed and was taken up");
                    RELOADS.inc(&["applied"]);
                }
                gate.set(true, "read");
            }
            Err(problem) => {
                warn!(problem, "the endpoints file cannot be taken up; the endpoints stay as they were");
                RELOADS.inc(&["refused"]);
                gate.set(false, format!("not taken up, the endpoints stay as they were: {problem}"));
            }
        }
    }
}

fn sum(text: &str) -> Digest {
    digest(&SHA256, text.as_bytes())
}

async fn read(path: &PathBuf) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > FILE_MAX_BYTES {
        return Err(format!("{} has {size} bytes; at most {FILE_MAX_BYTES} are read", path.display()));
    }
    tokio::fs::read_to_string(path).await.map_err(failed)
}

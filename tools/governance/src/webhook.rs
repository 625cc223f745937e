//! The notice that a run sends: what is wrong, and once what is not anymore.
//!
//! The shape is docs/governance_webhook.schema.json. `send` brings it to its receiver.

use crate::{semver::Status, stability::Metrics};
use serde_json::{Value, json};

/// The version of the notice; it rises when a field goes or means something else.
pub const VERSION: u32 = 1;
/// How a receiver knows it.
pub const EVENT: &str = "governance_notice";

/// Whether this can name a commit in a notice.
#[must_use]
pub fn is_sha(text: &str) -> bool {
    (7..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The notice of a run; `None` when there is nothing to report.
#[must_use]
pub fn notice(
    sha: &str,
    semver: Status,
    metrics: &Metrics,
    (added, removed): (usize, usize),
    reasons: &[&str],
) -> Option<Value> {
    (!reasons.is_empty()).then(|| {
        json!({
            "event": EVENT,
            "version": VERSION,
            "sha": sha,
            "semver_status": semver.word(),
            "stability_ratio": metrics.window_stability_ratio,
            "reasons": reasons,
            "operations": {"added": added, "removed": removed},
        })
    })
}

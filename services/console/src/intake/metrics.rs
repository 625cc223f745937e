//! What the board counts. `bridge_…` are names that dashboards of other installations know.

use super::item::Status;
use super::store::Counts;
use agentforge_metrics::{Bounded, Metric, OTHER};
use std::collections::{BTreeMap, BTreeSet};

/// Owners in metrics, in the life of a process.
static OWNERS: Bounded = Bounded::new(100);
/// The label of items without an owner.
const NO_OWNER: &str = "none";

const STATUSES: [&str; 5] = ["new", "triaged", "approved", "rejected", "done"];

/// Items that were made.
pub const INPUTS: Metric = Metric::counter("bridge_inputs_total", &[], "Items that were added to the intake board.");
/// Items that became jobs.
pub const EXPERIMENTS: Metric =
    Metric::counter("bridge_experiments_total", &[], "Items that were approved and became jobs.");
/// By state.
pub const BY_STATUS: Metric =
    Metric::gauge("bridge_inputs_by_status", &["status"], "Items on the board now, by status.").of(&[&STATUSES]);
/// By owner.
pub const BY_OWNER: Metric = Metric::gauge(
    "bridge_inputs_by_owner",
    &["owner"],
    "Items on the board now, by owner: the 50 with most items, none, and other.",
);
/// That left.
pub const EVENTS: Metric =
    Metric::counter("bridge_events_sent_total", &[], "Changes of items that the stream has confirmed.");
/// That wait.
pub const OUTBOX: Metric =
    Metric::gauge("bridge_outbox_events", &[], "Changes of items that wait for NATS, at most INTAKE_OUTBOX_MAX.");
/// Whether they wait for a reason.
pub const OUTBOX_HELD: Metric =
    Metric::gauge("bridge_outbox_held", &[], "1 while changes of items cannot be published, else 0.");

/// All of them.
pub const METRICS: &[Metric] = &[INPUTS, EXPERIMENTS, BY_STATUS, BY_OWNER, EVENTS, OUTBOX, OUTBOX_HELD];

/// The owners that are on the page: one without items goes.
#[derive(Debug, Default)]
pub struct Shown(BTreeSet<String>);

impl Shown {
    /// Shows these counts.
    pub fn show(&mut self, counts: &Counts) {
        for status in Status::ALL {
            BY_STATUS.set(&[status.as_str()], counts.by_status[status as usize] as f64);
        }
        let by_owner = by_label(counts, |owner| OWNERS.label(owner).to_owned());
        for gone in self.0.iter().filter(|owner| !by_owner.contains_key(*owner)) {
            BY_OWNER.withdraw(&[gone]);
        }
        for (owner, count) in &by_owner {
            BY_OWNER.set(&[owner], *count as f64);
        }
        self.0 = by_owner.into_keys().collect();
    }
}

/// Items by what `label` makes of their owner; what is not counted by owner is `other`.
fn by_label(counts: &Counts, label: impl Fn(&str) -> String) -> BTreeMap<String, i64> {
    let mut by_label = BTreeMap::new();
    for (owner, count) in &counts.by_owner {
        let label = if owner.is_empty() { NO_OWNER.to_owned() } else { label(owner) };
        *by_label.entry(label).or_insert(0) += count;
    }
    let rest = counts.total() - counts.by_owner.iter().map(|(_, count)| count).sum::<i64>();
    if rest > 0 {
        *by_label.entry(OTHER.to_owned()).or_insert(0) += rest;
    }
    by_label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        assert_eq!(agentforge_metrics::check(&[METRICS]), Vec::<String>::new());
        assert_eq!(STATUSES, Status::ALL.map(Status::as_str));
    }

    #[test]
    fn owners_without_a_place_are_counted_together() {
        let by_owner = vec![("eve".to_owned(), 5), (String::new(), 3), ("late".to_owned(), 2)];
        let counts = Counts { by_status: [12, 0, 0, 0, 0], by_owner };
        let labels = by_label(&counts, |owner| if owner == "eve" { owner.to_owned() } else { OTHER.to_owned() });
        let expected = [("eve", 5), ("none", 3), ("other", 4)].map(|(owner, n)| (owner.to_owned(), n));
        assert_eq!(labels, BTreeMap::from(expected));
    }
}

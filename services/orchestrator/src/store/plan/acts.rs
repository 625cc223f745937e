//! What a group's callers get into the audit log: one entry for all equal acts of a caller.
//!
//! A group has hundreds of submissions, often all of one caller: an entry for each would double what is written. Theirs has how
//! many jobs they are about, the first and the last of them, and the SHA-256 of all their ids: who submitted a job is also kept
//! with the job. An entry about changes names each of its jobs, at most 100: what became of a job is found by its id.

use super::{Answer, Plan};
use crate::caller::{Caller, Likeness};
use crate::model::State;
use crate::store::Subject;
use crate::transition::{Change, Ignored};
use agentforge_audit::{Entry, Hash, NAMED_MAX, OK};
use agentforge_message_id::JobId;
use agentforge_proto::time::Micros;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Equal acts of one caller.
struct Fold<'g> {
    caller: &'g Caller,
    outcome: &'static str,
    first: JobId,
    last: JobId,
    ids: Sha256,
    /// Those of changes.
    named: Vec<JobId>,
    jobs: u32,
    created: u32,
    states: Option<(State, State)>,
}

/// What became of one act.
struct Done {
    job: JobId,
    outcome: &'static str,
    created: bool,
    is_change: bool,
    states: Option<(State, State)>,
}

impl Plan<'_> {
    /// The entries of this commit, in the order in which they were asked for.
    pub(in crate::store) fn entries(&self, now: Micros) -> Vec<Entry> {
        let mut folds: Vec<Fold<'_>> = Vec::new();
        let mut known: HashMap<(Likeness<'_>, &'static str), usize> = HashMap::new();
        for (caller, subject) in &self.group.acts {
            let done = match *subject {
                Subject::Submit(number) => self.submitted(number),
                Subject::Change(number) => self.changed(number),
            };
            let key = (caller.likeness(), done.outcome);
            let open = known.get(&key).copied().filter(|index| folds[*index].named.len() < NAMED_MAX);
            let index = open.unwrap_or_else(|| {
                folds.push(Fold::new(caller, &done));
                known.insert(key, folds.len() - 1);
                folds.len() - 1
            });
            let fold = &mut folds[index];
            fold.last = done.job;
            fold.ids.update(done.job.as_bytes());
            fold.named.extend(done.is_change.then_some(done.job));
            fold.jobs += 1;
            fold.created += u32::from(done.created);
        }
        let mut entries: Vec<Entry> = folds.into_iter().map(|fold| fold.entry(now)).collect();
        for entry in &self.group.entries {
            // Refusals come in numbers when they come: equal ones are one entry.
            match entries.iter_mut().find(|known| known.is_like(entry)) {
                Some(known) => known.calls = known.calls.saturating_add(entry.calls),
                None => entries.push(entry.clone()),
            }
        }
        entries
    }

    fn submitted(&self, number: usize) -> Done {
        let (job, outcome, created) = match &self.answers[number] {
            Answer::Created(index) => (self.jobs[*index].job.id, OK, true),
            Answer::Existing(id) => (*id, OK, false),
            Answer::Conflict { existing, .. } => (*existing, "conflict", false),
        };
        Done { job, outcome, created, is_change: false, states: None }
    }

    fn changed(&self, number: usize) -> Done {
        let (job, change) = &self.group.changes[number];
        let (outcome, states) = match &self.changes[number] {
            Ok(changed) => (OK, Some((changed.from, changed.job.state))),
            Err(Ignored::Unknown) => ("not_found", None),
            // Cancelling again is not an error, and changes nothing.
            Err(_) if matches!(change, Change::Cancel { .. }) && self.is_cancelled(*job) => {
                (OK, Some((State::Cancelled, State::Cancelled)))
            }
            Err(_) => ("failed_precondition", None),
        };
        Done { job: *job, outcome, created: false, is_change: true, states }
    }

    fn is_cancelled(&self, job: JobId) -> bool {
        self.jobs.iter().any(|t| t.job.id == job && t.job.state == State::Cancelled)
    }
}

impl<'g> Fold<'g> {
    fn new(caller: &'g Caller, done: &Done) -> Self {
        let Done { job, outcome, states, .. } = *done;
        let (ids, named) = (Sha256::new(), Vec::new());
        Self { caller, outcome, first: job, last: job, ids, named, jobs: 0, created: 0, states }
    }

    fn entry(self, now: Micros) -> Entry {
        let entry = Entry { at: now, calls: self.jobs, ..self.caller.entry() }.ended(self.outcome);
        let mut detail = match (self.jobs, self.states) {
            (1, Some((before, after))) => {
                json!({"before": {"state": before.as_str()}, "after": {"state": after.as_str()}})
            }
            (1, None) if self.outcome == OK && self.named.is_empty() => json!({"created": self.created == 1}),
            (1, None) => json!({}),
            (jobs, _) if !self.named.is_empty() => {
                json!({"jobs": jobs, "ids": self.named.iter().map(ToString::to_string).collect::<Vec<_>>()})
            }
            (jobs, _) => json!({
                "jobs": jobs, "first": self.first.to_string(), "last": self.last.to_string(),
                "ids_sha256": Hash(self.ids.finalize().into()), "created": self.created,
            }),
        };
        if let Some(operation) = self.caller.under() {
            detail["operation"] = json!(operation.to_string());
        }
        let entry = entry.about("job", Some(self.first.to_string()).filter(|_| self.jobs == 1));
        if detail.as_object().is_none_or(serde_json::Map::is_empty) { entry } else { entry.with(&detail) }
    }
}

//! What a group's callers get into the audit log: one entry for all equal acts of a caller, with how many jobs they are
//! about, the first and the last of them, and the SHA-256 of all their ids.
//!
//! A group has hundreds of submissions, often all of one caller: an entry for each would double what is written. Who
//! submitted a job is also kept with the job.

use super::{Answer, Plan};
use crate::caller::{Caller, Likeness};
use crate::model::State;
use crate::store::Subject;
use crate::transition::{Change, Ignored};
use agentforge_audit::{Entry, Hash, OK};
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
    jobs: u32,
    created: u32,
    states: Option<(State, State)>,
}

/// What became of one act.
struct Done {
    job: JobId,
    outcome: &'static str,
    created: bool,
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
            let index = *known.entry((caller.likeness(), done.outcome)).or_insert_with(|| {
                folds.push(Fold {
                    caller,
                    outcome: done.outcome,
                    first: done.job,
                    last: done.job,
                    ids: Sha256::new(),
                    jobs: 0,
                    created: 0,
                    states: done.states,
                });
                folds.len() - 1
            });
            let fold = &mut folds[index];
            fold.last = done.job;
            fold.ids.update(done.job.as_bytes());
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
        Done { job, outcome, created, states: None }
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
        Done { job: *job, outcome, created: false, states }
    }

    fn is_cancelled(&self, job: JobId) -> bool {
        self.jobs.iter().any(|t| t.job.id == job && t.job.state == State::Cancelled)
    }
}

impl Fold<'_> {
    fn entry(self, now: Micros) -> Entry {
        let entry = Entry { at: now, calls: self.jobs, ..self.caller.entry() }.ended(self.outcome);
        if self.jobs == 1 {
            let entry = entry.about("job", Some(self.first.to_string()));
            return match self.states {
                Some((before, after)) => {
                    entry.with(&json!({"before": {"state": before.as_str()}, "after": {"state": after.as_str()}}))
                }
                None if self.outcome == OK => entry.with(&json!({"created": self.created == 1})),
                None => entry,
            };
        }
        let (first, last) = (self.first.to_string(), self.last.to_string());
        let mut detail = json!({
            "jobs": self.jobs, "first": first, "last": last, "ids_sha256": Hash(self.ids.finalize().into()),
        });
        if self.states.is_none() {
            detail["created"] = json!(self.created);
        }
        entry.about("job", None).with(&detail)
    }
}

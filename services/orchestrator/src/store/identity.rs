//! Whether a submission is new: by the id and the key that its caller gave. Pure.
//!
//! Both are honoured or the submission is refused. A caller who is answered with a job may rely on every
//! name that it gave: the job has that id, and no other job will be made under that key.

use crate::model::{KeyReuse, NewJob, State};
use agentforge_message_id::JobId;
use std::collections::HashMap;

/// A stored job whose id or key a submission names.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub id: JobId,
    pub mission: String,
    /// The key it was submitted with, also where another job has that by now.
    pub key: Option<String>,
    /// Whether the key is still its own.
    pub holds_key: bool,
    pub body_hash: Option<Vec<u8>>,
    pub given_hash: Option<Vec<u8>>,
    pub state: State,
}

/// Why a submission cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// The id is taken by a submission with another body.
    IdWithOtherBody,
    /// The key is taken by a submission with another body.
    KeyWithOtherBody,
    /// The id is taken by a submission with another key, or with none.
    IdWithOtherKey,
    /// The key is taken by a job of another id.
    KeyWithOtherId,
}

impl Clash {
    /// The field at fault.
    pub const fn field(self) -> &'static str {
        match self {
            Self::IdWithOtherBody | Self::KeyWithOtherId => "id",
            Self::KeyWithOtherBody | Self::IdWithOtherKey => "idempotency_key",
        }
    }

    /// What is wrong, as the rest of a sentence about the existing job.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::IdWithOtherBody => "was submitted with the same id and another body",
            Self::KeyWithOtherBody => "was submitted with the same idempotency_key and another body",
            Self::IdWithOtherKey => "was submitted with the same id or idempotency_key, but not with both of them",
            Self::KeyWithOtherId => "has the same idempotency_key and another id; leave the id out to get that job",
        }
    }
}

/// What a submission is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not known: to be stored, after this job's key was taken from it.
    New { released: Option<JobId> },
    /// The same submission was stored before, as this job.
    Existing(JobId),
    /// Something else has its id or key.
    Conflict { existing: JobId, clash: Clash },
}

struct Known<'k> {
    id: JobId,
    key: Option<&'k str>,
    body_hash: Option<&'k [u8]>,
    given_hash: Option<&'k [u8]>,
    state: State,
}

impl Known<'_> {
    /// What the caller gave decides; where the version before stored the job, what that came to.
    fn has_body_of(&self, job: &NewJob) -> bool {
        let slice = |hash: &Option<[u8; 32]>| hash.as_ref().map(<[u8; 32]>::as_slice).map(<[u8]>::to_vec);
        match (self.given_hash, slice(&job.given_hash)) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => slice(&job.body_hash).is_some_and(|ours| self.body_hash == Some(&ours)),
        }
    }
}

/// The jobs that are known by id or key: stored ones, and those of the same group.
pub(super) struct Identities<'k> {
    all: Vec<Known<'k>>,
    ids: HashMap<JobId, usize>,
    keys: HashMap<(&'k str, &'k str), usize>,
}

impl<'k> Identities<'k> {
    pub(super) fn of(taken: &'k [Taken]) -> Self {
        let mut known = Self { all: Vec::new(), ids: HashMap::new(), keys: HashMap::new() };
        for t in taken {
            let index = known.all.len();
            known.all.push(Known {
                id: t.id,
                key: t.key.as_deref(),
                body_hash: t.body_hash.as_deref(),
                given_hash: t.given_hash.as_deref(),
                state: t.state,
            });
            known.ids.insert(t.id, index);
            if let Some(key) = t.key.as_deref().filter(|_| t.holds_key) {
                known.keys.insert((&t.mission, key), index);
            }
        }
        known
    }

    /// A job that is new in this group.
    pub(super) fn add(&mut self, job: &'k NewJob) {
        let index = self.all.len();
        let key = job.idempotency_key.as_deref();
        self.all.push(Known {
            id: job.id,
            key,
            body_hash: job.body_hash.as_ref().map(<[u8; 32]>::as_slice),
            given_hash: job.given_hash.as_ref().map(<[u8; 32]>::as_slice),
            state: State::Accepted,
        });
        self.ids.insert(job.id, index);
        if let Some(key) = key {
            self.keys.insert((job.mission.as_str(), key), index);
        }
    }

    pub(super) fn judge(&self, job: &NewJob) -> Verdict {
        let key = job.idempotency_key.as_deref();
        let by_key = key.and_then(|k| self.keys.get(&(job.mission.as_str(), k))).map(|i| &self.all[*i]);
        if let Some(known) = self.ids.get(&job.id).map(|i| &self.all[*i]) {
            return if key.is_some() && key != known.key {
                // The job that has the key says more than the one that has the id.
                let existing = by_key.map_or(known.id, |k| k.id);
                Verdict::Conflict { existing, clash: Clash::IdWithOtherKey }
            } else if known.has_body_of(job) {
                Verdict::Existing(known.id)
            } else {
                Verdict::Conflict { existing: known.id, clash: Clash::IdWithOtherBody }
            };
        }
        let Some(known) = by_key else { return Verdict::New { released: None } };
        let conflict = |clash| Verdict::Conflict { existing: known.id, clash };
        match known.has_body_of(job) {
            _ if job.key_reuse != KeyReuse::Never && job.key_reuse.allows(known.state) => {
                Verdict::New { released: Some(known.id) }
            }
            false => conflict(Clash::KeyWithOtherBody),
            true if job.id_from_caller => conflict(Clash::KeyWithOtherId),
            true => Verdict::Existing(known.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{JobRequest, SubmitInput, admit, tests::limits};
    use agentforge_proto::time::Micros;

    fn job(id: Option<JobId>, key: Option<&str>, args: &str) -> NewJob {
        let input = SubmitInput {
            request: JobRequest { tool: "echo".into(), args: args.into(), ..JobRequest::default() },
            id: id.map(|id| id.to_string()),
            idempotency_key: key.map(str::to_owned),
            ..SubmitInput::default()
        };
        admit(input, &limits(), Micros(1), None).unwrap()
    }

    fn taken(job: &NewJob, state: State) -> Taken {
        Taken {
            id: job.id,
            mission: job.mission.to_string(),
            key: job.idempotency_key.clone(),
            holds_key: true,
            body_hash: job.body_hash.map(Vec::from),
            given_hash: job.given_hash.map(Vec::from),
            state,
        }
    }

    /// Every way in which an id and a key can be known or not, against the job (X, A) and the job (Z, B).
    #[test]
    fn id_and_key_are_both_honoured_or_both_refused() {
        let (x, y, z) = (JobId::generate(), JobId::generate(), JobId::generate());
        let stored = [
            taken(&job(Some(x), Some("A"), "{}"), State::Succeeded),
            taken(&job(Some(z), Some("B"), "{}"), State::Running),
        ];
        let known = Identities::of(&stored);
        let conflict = |existing, clash| Verdict::Conflict { existing, clash };
        let new = || Verdict::New { released: None };
        let table = [
            (Some(x), Some("A"), Verdict::Existing(x)),
            (Some(x), None, Verdict::Existing(x)),
            (None, Some("A"), Verdict::Existing(x)),
            (Some(x), Some("C"), conflict(x, Clash::IdWithOtherKey)),
            (Some(x), Some("B"), conflict(z, Clash::IdWithOtherKey)),
            (Some(y), Some("A"), conflict(x, Clash::KeyWithOtherId)),
            (Some(y), Some("C"), new()),
            (Some(y), None, new()),
            (None, Some("C"), new()),
            (None, None, new()),
        ];
        for (id, key, want) in table {
            assert_eq!(known.judge(&job(id, key, "{}")), want, "{id:?} {key:?}");
        }
        let other = r#"{"n":2}"#;
        for (id, key, want) in [
            (Some(x), Some("A"), conflict(x, Clash::IdWithOtherBody)),
            (None, Some("A"), conflict(x, Clash::KeyWithOtherBody)),
            (Some(y), Some("A"), conflict(x, Clash::KeyWithOtherBody)),
        ] {
            assert_eq!(known.judge(&job(id, key, other)), want, "{id:?} {key:?} with another body");
        }
    }

    #[test]
    fn a_job_without_a_key_has_none_of_it_later() {
        let x = JobId::generate();
        let stored = [taken(&job(Some(x), None, "{}"), State::Queued)];
        let known = Identities::of(&stored);
        let clash = Clash::IdWithOtherKey;
        assert_eq!(known.judge(&job(Some(x), Some("C"), "{}")), Verdict::Conflict { existing: x, clash });
    }

    #[test]
    fn the_same_holds_inside_one_group() {
        let first = job(Some(JobId::generate()), Some("A"), "{}");
        let mut known = Identities::of(&[]);
        assert_eq!(known.judge(&first), Verdict::New { released: None });
        known.add(&first);
        assert_eq!(known.judge(&first), Verdict::Existing(first.id));
        let clash = Clash::KeyWithOtherId;
        let other = job(Some(JobId::generate()), Some("A"), "{}");
        assert_eq!(known.judge(&other), Verdict::Conflict { existing: first.id, clash });
    }

    #[test]
    fn a_key_is_given_away_by_the_ends_that_the_caller_names() {
        for state in State::ALL {
            let first = job(None, Some("A"), "{}");
            let stored = [taken(&first, state)];
            let known = Identities::of(&stored);
            for (reuse, ends) in [
                (KeyReuse::Never, &[][..]),
                (KeyReuse::AfterStop, &[State::Cancelled, State::Expired]),
                (KeyReuse::AfterFailure, &[State::Cancelled, State::Expired, State::Failed, State::Dead]),
            ] {
                let again = NewJob { key_reuse: reuse, ..job(None, Some("A"), "{}") };
                let want = if ends.contains(&state) {
                    Verdict::New { released: Some(first.id) }
                } else {
                    Verdict::Existing(first.id)
                };
                assert_eq!(known.judge(&again), want, "{state:?} {reuse:?}");
            }
        }
    }

    #[test]
    fn a_row_of_the_version_before_is_known_by_what_it_came_to() {
        let first = job(None, Some("A"), "{}");
        let stored = [Taken { given_hash: None, ..taken(&first, State::Succeeded) }];
        let known = Identities::of(&stored);
        assert_eq!(known.judge(&job(None, Some("A"), "{}")), Verdict::Existing(first.id));
        let clash = Clash::KeyWithOtherBody;
        assert_eq!(known.judge(&job(None, Some("A"), r#"{"n":1}"#)), Verdict::Conflict { existing: first.id, clash });
    }
}

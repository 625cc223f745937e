//! Subjects that the server does not let us publish on.
//!
//! A denied publish gets no answer, only a line on the connection that names the subject. Kept here, so that a wait
//! that timed out can say why.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Subjects kept at once; a user is denied a few or all of them.
const SUBJECTS_MAX: usize = 256;
/// How long a denial is believed: an operator may have changed the permissions, and each publish renews it.
const BELIEVED: Duration = Duration::from_secs(60);
/// What the server says, before the subject in quotes.
const WORDS: &str = "permissions violation for publish to ";

/// The subjects, each with the moment of the last denial.
#[derive(Debug, Default)]
pub struct Denied(Mutex<BTreeMap<String, Instant>>);

impl Denied {
    /// Reads what the server said; anything but a denied publish is nothing.
    pub(crate) fn note(&self, said: &str) {
        let Some(at) = said.to_ascii_lowercase().find(WORDS) else { return };
        let subject = said[at + WORDS.len()..].trim().trim_matches('"').to_owned();
        let mut subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subjects.retain(|_, at| at.elapsed() < BELIEVED);
        if subjects.len() < SUBJECTS_MAX {
            subjects.insert(subject, Instant::now());
        }
    }

    /// Whether a subject that begins so was denied lately.
    pub fn any_below(&self, prefix: &str) -> bool {
        let subjects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subjects
            .range(prefix.to_owned()..)
            .take_while(|(subject, _)| subject.starts_with(prefix))
            .any(|(_, at)| at.elapsed() < BELIEVED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_subject_is_read_from_what_the_server_says() {
        let denied = Denied::default();
        denied.note("Permissions Violation for Publish to \"swarm.results.dev.gpu\"");
        denied.note("permissions violation for subscription to \"a.b\"");
        denied.note("authorization violation");
        assert!(denied.any_below("swarm.results.dev.gpu") && denied.any_below("swarm.results."));
        assert!(!denied.any_below("swarm.results.dev.other") && !denied.any_below("a.b"));
        (0..2 * SUBJECTS_MAX).for_each(|n| denied.note(&format!("Permissions Violation for Publish to \"x.{n}\"")));
        assert_eq!(denied.0.lock().unwrap().len(), SUBJECTS_MAX);
    }
}

//! The targets that hold now and their samples. What is counted is counted here, with the samples that are kept.
//!
//! A sample of a target that was taken off meanwhile is dropped: it would bring its series back.

use super::metrics::{self, SERVICES};
use super::probe::to_the_millisecond;
use super::stats::{Ring, Sample, Stats};
use super::targets::Target;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Where the targets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The file that the API writes.
    Persisted,
    /// The settings, or a call that did not ask for the file.
    Env,
}

impl Source {
    /// As the label has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Persisted => "persisted",
            Self::Env => "env",
        }
    }
}

/// A service with its samples, as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// What is asked for.
    pub url: String,
    /// The newest samples, oldest first.
    pub samples: Vec<Sample>,
    /// Of all that are kept.
    pub stats: Stats,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// When the newest sample was taken; before the first, when the sampler began.
    #[serde(rename = "updatedAt")]
    pub updated_at: Timestamp,
    /// In the order of the targets.
    pub services: Vec<ServiceView>,
}

#[derive(Debug)]
struct State {
    targets: Arc<[Target]>,
    source: Source,
    rings: BTreeMap<String, Ring>,
    updated_at: Timestamp,
}

/// The one place that has them.
#[derive(Debug)]
pub struct Board(RwLock<State>);

impl Board {
    /// With these targets.
    pub fn new(targets: Vec<Target>, source: Source) -> Self {
        let state = State {
            targets: targets.into(),
            source,
            rings: BTreeMap::new(),
            updated_at: to_the_millisecond(Timestamp::now()),
        };
        state.announce(&[]);
        Self(RwLock::new(state))
    }

    /// The targets that hold now, and where they come from.
    pub fn targets(&self) -> (Arc<[Target]>, Source) {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (state.targets.clone(), state.source)
    }

    /// Replaces the targets. Samples of those that stay as they are stay too.
    pub fn replace(&self, targets: Vec<Target>, source: Source) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Target> = state.targets.iter().filter(|old| !targets.contains(old)).cloned().collect();
        for target in &gone {
            state.rings.remove(&target.name);
        }
        state.targets = targets.into();
        state.source = source;
        state.announce(&gone);
    }

    /// Takes a sample of a target, if it is still one.
    pub fn record(&self, target: &Target, sample: Sample) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !state.targets.contains(target) {
            return;
        }
        count(&target.name, &sample);
        state.updated_at = state.updated_at.max(sample.ts);
        state.rings.entry(target.name.clone()).or_default().push(sample);
    }

    /// What is known, with the newest `samples` of each service.
    pub fn view(&self, samples: usize) -> View {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let none = Ring::default();
        let services = state.targets.iter().map(|target| {
            let ring = state.rings.get(&target.name).unwrap_or(&none);
            ServiceView {
                name: target.name.clone(),
                url: target.url.to_string(),
                samples: ring.newest(samples),
                stats: ring.stats(),
            }
        });
        View { updated_at: state.updated_at, services: services.collect() }
    }
}

impl State {
    /// Shows how many targets there are under their source, and takes the series of the other source and of services
    /// that are gone off the page.
    fn announce(&self, gone: &[Target]) {
        for target in gone.iter().filter(|gone| !self.targets.iter().any(|t| t.name == gone.name)) {
            let service = SERVICES.label(&target.name);
            // `other` is shared.
            if service == target.name {
                metrics::LAST_MS.withdraw(&[service]);
                metrics::CLASS.withdraw(&[service]);
            }
        }
        for target in self.targets.iter() {
            let service = SERVICES.label(&target.name);
            metrics::LATENCY.begin(&[service]);
            metrics::ATTEMPTS.add(&[service], 0);
            metrics::OK.add(&[service], 0);
        }
        for source in metrics::SOURCES.into_iter().filter(|source| *source != self.source.as_str()) {
            metrics::TARGETS.withdraw(&[source]);
        }
        metrics::TARGETS.set(&[self.source.as_str()], self.targets.len() as f64);
    }
}

fn count(name: &str, sample: &Sample) {
    let service = SERVICES.label(name);
    metrics::LATENCY.observe(&[service, if sample.ok { "true" } else { "false" }], sample.ms / 1_000.0);
    metrics::ATTEMPTS.inc(&[service]);
    metrics::CLASS.set(&[service], sample.cls.number());
    if sample.ok {
        metrics::OK.inc(&[service]);
        metrics::LAST_MS.set(&[service], sample.ms);
    }
}

#[cfg(test)]
mod tests {
    use super::super::targets::parse;
    use super::*;

    #[test]
    fn samples_stay_with_their_target_and_go_with_it() {
        let first = parse("a:http://127.0.0.1:1/,b:http://127.0.0.1:2/").unwrap();
        let board = Board::new(first.clone(), Source::Env);
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        for target in &first {
            board.record(target, Sample::new(later, 5.0, Some(200)));
        }
        // b has another address now: what was measured is of another place.
        let second = parse("b:http://127.0.0.1:3/,a:http://127.0.0.1:1/").unwrap();
        board.replace(second, Source::Persisted);
        board.record(&first[1], Sample::new(Timestamp::UNIX_EPOCH, 7.0, Some(200)));
        let view = board.view(9);
        let counts: Vec<_> = view.services.iter().map(|s| (s.name.as_str(), s.samples.len())).collect();
        assert_eq!(counts, [("b", 0), ("a", 1)]);
        assert_eq!(board.targets().1, Source::Persisted);
        assert_eq!(view.updated_at, later);
    }
}

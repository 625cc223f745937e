//! Reports and outputs that NATS refuses and that are held until an operator puts that right: where, and why.
//!
//! Readiness reports it. A worker whose results are refused holds them in memory, takes no new job in those slots, and
//! looks healthy otherwise.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

/// What is refused now, by where it was to go.
#[derive(Clone, Default)]
pub(crate) struct Refusals {
    places: Arc<Mutex<BTreeMap<String, Place>>>,
    changed: Arc<Notify>,
}

struct Place {
    held: usize,
    reason: String,
}

/// One report or output that is held; it counts until this is dropped.
pub(crate) struct Refused {
    refusals: Refusals,
    place: String,
}

impl Refusals {
    /// Something that was to go there is held for that reason.
    pub(crate) fn note(&self, place: &str, reason: &str) -> Refused {
        {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            let known = places.entry(place.to_owned()).or_insert_with(|| Place { held: 0, reason: String::new() });
            known.held += 1;
            reason.clone_into(&mut known.reason);
        }
        self.changed.notify_one();
        Refused { refusals: self.clone(), place: place.to_owned() }
    }

    /// In words; empty when nothing is refused.
    pub(crate) fn summary(&self) -> String {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let each = places.values().map(|place| format!("{} held: {}", place.held, place.reason));
        each.collect::<Vec<_>>().join("; ")
    }

    /// Waits for a change.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Refused {
    /// It is still refused, and this is the reason now.
    pub(crate) fn renew(&self, reason: &str) {
        let mut places = self.refusals.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = places.get_mut(&self.place).filter(|place| place.reason != reason) else { return };
        reason.clone_into(&mut place.reason);
        drop(places);
        self.refusals.changed.notify_one();
    }
}

impl Drop for Refused {
    fn drop(&mut self) {
        let mut places = self.refusals.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.get_mut(&self.place) {
            place.held -= 1;
            if place.held == 0 {
                places.remove(&self.place);
            }
        }
        drop(places);
        self.refusals.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_named_while_it_is_held() {
        let refusals = Refusals::default();
        let (first, second) = (refusals.note("a", "denied"), refusals.note("a", "sealed"));
        let other = refusals.note("b", "full");
        assert_eq!(refusals.summary(), "2 held: sealed; 1 held: full");
        other.renew("too small");
        assert_eq!(refusals.summary(), "2 held: sealed; 1 held: too small");
        drop((first, other));
        assert_eq!(refusals.summary(), "1 held: sealed");
        second.renew("no counter");
        assert_eq!(refusals.summary(), "1 held: no counter");
        drop(second);
        assert_eq!(refusals.summary(), "");
    }
}

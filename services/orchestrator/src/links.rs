//! Links of sites over the last day: when each was up.
//!
//! A site knows its own link; a hub knows when it heard each of its sites. It is in memory, bounded for each site, and each
//! replica has its own: after a start the time before is unknown, and said to be.

use agentforge_message_id::Site;
use agentforge_proto::time::Micros;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far back it reaches.
pub const REACH: Duration = Duration::from_secs(24 * 60 * 60);
/// Spans kept of a site, at most: with more of them it reaches less far back.
const SPANS_MAX: usize = 256;
/// A site that was silent for longer than this was cut off: three beats and their way.
const SILENCE: Duration = Duration::from_secs(16);

/// The links, shared between those who watch them and those who show them. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<Mutex<BTreeMap<(Whose, Site), Link>>>);

/// Whose link it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// That of this process to its hub.
    Own,
    /// That of a site from which this hub hears.
    Heard,
}

/// A link over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Nothing is known of the time before.
    pub known_since: Micros,
    /// When it was up, the oldest first: from and to. The last of a link that is up has no end.
    pub up: VecDeque<(Micros, Option<Micros>)>,
    /// When the site was heard last, or the link was seen up.
    pub seen_at: Option<Micros>,
}

impl Link {
    fn new(known_since: Micros) -> Self {
        Self { known_since, up: VecDeque::new(), seen_at: None }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.up.back().is_some_and(|(_, end)| end.is_none())
    }

    fn rise(&mut self, now: Micros) {
        if !self.is_up() {
            self.up.push_back((now, None));
        }
        self.seen_at = Some(now);
    }

    fn fall(&mut self, at: Micros) {
        if let Some((_, end @ None)) = self.up.back_mut() {
            *end = Some(at);
        }
    }

    /// Forgets what is older than a day, and what is too much.
    fn trim(&mut self, now: Micros) {
        let first = Micros(now.0 - REACH.as_micros() as i64);
        while self.up.front().is_some_and(|(_, end)| end.is_some_and(|end| end <= first)) {
            self.up.pop_front();
        }
        while self.up.len() > SPANS_MAX {
            let gone = self.up.pop_front();
            self.known_since = gone.and_then(|(_, end)| end).unwrap_or(now);
        }
        self.known_since = self.known_since.max(first);
    }
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Whose, Site), Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the state of this process' own link.
    pub fn note_own(&self, site: &Site, is_up: bool, now: Micros) {
        let mut links = self.lock();
        let link = links.entry((Whose::Own, site.clone())).or_insert_with(|| Link::new(now));
        if is_up && link.up.is_empty() && now.0 - link.known_since.0 <= SILENCE.as_micros() as i64 {
            // It was being made.
            link.known_since = now;
        }
        if is_up {
            link.rise(now)
        } else {
            link.fall(now)
        }
        link.trim(now);
    }

    /// Notes that a site was heard. The caller bounds the number of sites.
    pub fn note_heard(&self, site: &Site, now: Micros) {
        let mut links = self.lock();
        let link = links.entry((Whose::Heard, site.clone())).or_insert_with(|| Link::new(now));
        silenced(link, now);
        link.rise(now);
        link.trim(now);
    }

    /// All of them as they are `now`, this process' own first.
    pub fn read(&self, now: Micros) -> Vec<(Whose, Site, Link)> {
        let mut links = self.lock();
        let shown = links.iter_mut().map(|((whose, site), link)| {
            match whose {
                Whose::Heard => silenced(link, now),
                Whose::Own if link.is_up() => link.seen_at = Some(now),
                Whose::Own => {}
            }
            link.trim(now);
            (*whose, site.clone(), link.clone())
        });
        shown.collect()
    }
}

/// Ends what is up, if it was not heard for too long: it was up until it was heard last.
fn silenced(link: &mut Link, now: Micros) {
    if let Some(last) = link.seen_at.filter(|last| now.0 - last.0 > SILENCE.as_micros() as i64) {
        link.fall(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    fn site() -> Site {
        Site::new("pier-7").unwrap()
    }

    fn only(links: &Links, now: Micros) -> Link {
        let mut all = links.read(now);
        assert_eq!(all.len(), 1);
        all.remove(0).2
    }

    #[test]
    fn a_site_is_up_while_it_is_heard_and_was_up_until_then() {
        let links = Links::default();
        for beat in [100, 105, 110, 300, 305] {
            links.note_heard(&site(), at(beat));
        }
        let now = only(&links, at(310));
        assert_eq!(Vec::from(now.up.clone()), [(at(100), Some(at(110))), (at(300), None)]);
        assert!(now.is_up() && now.known_since == at(100) && now.seen_at == Some(at(305)));
        let later = only(&links, at(322));
        assert_eq!(later.up.back(), Some(&(at(300), Some(at(305)))));
        assert!(!later.is_up());
    }

    #[test]
    fn the_own_link_is_what_it_was_said_to_be() {
        let links = Links::default();
        for (second, is_up) in [(1, false), (2, true), (3, true), (9, false), (20, true)] {
            links.note_own(&site(), is_up, at(second));
        }
        let link = only(&links, at(1_000));
        assert_eq!(Vec::from(link.up), [(at(2), Some(at(9))), (at(20), None)]);
        assert_eq!(
            (link.known_since, link.seen_at),
            (at(2), Some(at(1_000))),
            "how long it took at the start is no outage"
        );
    }

    #[test]
    fn it_reaches_a_day_back_and_holds_a_bounded_number() {
        let links = Links::default();
        links.note_own(&site(), true, at(0));
        links.note_own(&site(), false, at(10));
        let day = REACH.as_secs() as i64;
        let link = only(&links, at(day + 11));
        assert_eq!((link.up.len(), link.known_since), (0, at(11)));
        // It flaps: the newest are kept, and it says since when.
        for turn in 0..1_000 {
            links.note_own(&site(), true, at(day + 20 + turn * 2));
            links.note_own(&site(), false, at(day + 21 + turn * 2));
        }
        let link = only(&links, at(day + 3_000));
        assert_eq!(link.up.len(), SPANS_MAX);
        assert_eq!(link.known_since, at(day + 21 + (999 - SPANS_MAX as i64) * 2));
    }
}

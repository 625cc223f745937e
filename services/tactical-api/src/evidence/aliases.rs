//! Names that publishers gave their evidence, stored with what they stand for. Each belongs to the site that gave it.
//!
//! Follows the stream of evidence by reading only headers. Bounded; the oldest names are dropped.

use crate::{
    links, reference,
    tail::{Tail, TailEvent, Tailed},
};
use agentforge_proto::evidence::{HEADER_EVIDENCE_ID, HEADER_SAME_AS};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Names that are kept.
const ALIASES_MAX: usize = 100_000;

/// The names. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Aliases(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By alias, and then by site.
    subjects: HashMap<String, BTreeMap<String, String>>,
    /// Alias and site.
    order: VecDeque<(String, String)>,
}

impl Aliases {
    /// The subject that the alias in a link's id stands for, and the hash at its end. A link of an earlier version
    /// names no site: it is followed if only one site has that alias.
    pub fn place_of(&self, id: &str) -> Option<(String, String)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (site, alias) = reference::alias_of(id);
        let of_sites = known.subjects.get(alias)?;
        let subject = match site {
            Some(site) => of_sites.get(site)?,
            None => of_sites.values().next().filter(|_| of_sites.len() == 1)?,
        };
        let sha256 = subject.rsplit('.').next()?.to_owned();
        Some((subject.clone(), sha256))
    }

    /// Learns names until the stop. A stream that is not there has none.
    pub async fn follow(self, mut tail: Tail, stop: CancellationToken) {
        let told = |outcome: Result<(), String>| {
            if let Err(reason) = outcome {
                debug!(reason, "no evidence to follow");
            }
        };
        loop {
            let news = tokio::select! {
                news = tail.next(told) => news,
                () = stop.cancelled() => return,
            };
            match news {
                TailEvent::Began { .. } => {}
                TailEvent::Reset { .. } => *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known::default(),
                TailEvent::Messages(messages) => messages.into_iter().for_each(|message| self.learn(message)),
            }
        }
    }

    fn learn(&self, message: Tailed) {
        let Some(headers) = message.headers.as_ref() else { return };
        let Some(alias) = headers.get(HEADER_EVIDENCE_ID) else { return };
        // A link to a longer one is never made.
        if alias.as_str().chars().count() > links::ID_MAX {
            return;
        }
        let Some(site) = reference::site_of_subject(&message.subject).map(str::to_owned) else { return };
        // Of a content that was there under another name the content is meant; a site speaks only for its own.
        let same = headers.get(HEADER_SAME_AS).map(|same| same.as_str().to_owned());
        let subject = same.filter(|same| reference::site_of_subject(same) == Some(&site)).unwrap_or(message.subject);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(alias.as_str().to_owned(), site, subject);
    }
}

impl Known {
    fn insert(&mut self, alias: String, site: String, subject: String) {
        if self.subjects.entry(alias.clone()).or_default().insert(site.clone(), subject).is_none() {
            self.order.push_back((alias, site));
        }
        if self.order.len() > ALIASES_MAX
            && let Some((alias, site)) = self.order.pop_front()
            && let Some(of_sites) = self.subjects.get_mut(&alias)
        {
            of_sites.remove(&site);
            if of_sites.is_empty() {
                self.subjects.remove(&alias);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_belongs_to_the_site_that_gave_it() {
        let aliases = Aliases::default();
        let give = |site: &str| {
            let mut known = aliases.0.lock().unwrap();
            known.insert("report".into(), site.into(), format!("edge.evidence.{site}.hash-of-{site}"));
        };
        give("a");
        let found = |id: &str| aliases.place_of(id).map(|(_, hash)| hash);
        assert_eq!((found("~a/report").as_deref(), found("~b/report")), (Some("hash-of-a"), None));
        assert_eq!(found("report").as_deref(), Some("hash-of-a"));
        give("b");
        assert_eq!(found("~a/report").as_deref(), Some("hash-of-a"));
        assert_eq!(found("~b/report").as_deref(), Some("hash-of-b"));
        // Which of them an old link means is not known.
        assert_eq!(found("report"), None);
    }
}

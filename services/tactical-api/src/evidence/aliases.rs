//! Names that publishers gave their evidence, stored with what they stand for.
//!
//! Follows the stream of evidence by reading only headers. Bounded; the oldest names are dropped.

use crate::{
    links,
    tail::{Tail, TailEvent, Tailed},
};
use agentforge_proto::evidence::{HEADER_EVIDENCE_ID, HEADER_SAME_AS};
use std::{
    collections::{HashMap, VecDeque},
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
    subjects: HashMap<String, String>,
    order: VecDeque<String>,
}

impl Aliases {
    /// The subject that a name stands for, and the hash at its end.
    pub fn place_of(&self, alias: &str) -> Option<(String, String)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let subject = known.subjects.get(alias)?;
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
        // Of a content that was there under another name the content is meant.
        let subject = headers.get(HEADER_SAME_AS).map_or(message.subject, |same| same.as_str().to_owned());
        // A link to a longer one is never made.
        if alias.as_str().chars().count() > links::ID_MAX {
            return;
        }
        let alias = alias.as_str().to_owned();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.subjects.insert(alias.clone(), subject).is_none() {
            known.order.push_back(alias);
        }
        if known.order.len() > ALIASES_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.subjects.remove(&oldest);
        }
    }
}

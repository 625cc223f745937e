//! Other names of a content that the stream has: reported to the hub by a small message each, once.
//!
//! It goes below the site's own subject, so it crosses the link as evidence does, and is kept by the same stream.
//! A name that was reported before is refused there, which is success. Bounded for each content: a million empty
//! files are not a million messages.

use crate::{directory::stamp::Stamp, names};
use agentforge_proto::evidence::{ALIASES_TOKEN, ContentAlias};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Names of one content that are reported; more of them are only in the ledger.
const NAMES_MAX: u32 = 1000;
/// Contents whose names are counted; with more, counting restarts.
const CONTENTS_MAX: usize = 4096;

/// How many names of each content were reported since the start.
#[derive(Debug, Default)]
pub struct AliasLimits(Mutex<HashMap<String, u32>>);

impl AliasLimits {
    /// Whether one more may be reported.
    pub fn admit(&self, sha256: &str) -> bool {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() >= CONTENTS_MAX && !reported.contains_key(sha256) {
            reported.clear();
        }
        let names = reported.entry(sha256.to_owned()).or_default();
        *names = names.saturating_add(1);
        *names <= NAMES_MAX
    }
}

/// The message that reports another name of a content.
#[derive(Debug)]
pub struct Alias {
    /// What distinguishes the name from others of this content.
    pub token: String,
    /// Where it is published.
    pub subject: String,
    /// The body: which content has this name too, as JSON.
    pub payload: Bytes,
}

impl Alias {
    /// Of a file whose content the stream has at `seq`; `root` is the site's own subject.
    pub fn of(root: &str, name: &[u8], stamp: &Stamp, sha256: &str, seq: u64) -> Self {
        let file = names::encode(name);
        let token = hex::encode(&digest(&SHA256, file.as_bytes()).as_ref()[..16]);
        let subject = format!("{root}.{ALIASES_TOKEN}.{token}.{sha256}");
        let mtime = jiff::Timestamp::from_nanosecond(i128::from(stamp.mtime_ns)).unwrap_or_default().to_string();
        let alias = ContentAlias { file, size: stamp.size, sha256: sha256.to_owned(), mtime, seq };
        let payload = Bytes::from(serde_json::to_vec(&alias).expect("a record of plain values serializes"));
        Self { token, subject, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_within_bounds() {
        let reported = AliasLimits::default();
        assert!((0..NAMES_MAX).all(|_| reported.admit("a")) && !reported.admit("a") && reported.admit("b"));
        for n in 0..2 * CONTENTS_MAX {
            reported.admit(&n.to_string());
        }
        assert!(reported.0.lock().unwrap().len() <= CONTENTS_MAX);
    }
}

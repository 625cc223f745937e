//! The chain: each entry's hash covers its canonical form, its place, and the hash before it.

use crate::entry::Entry;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// What the canonical form begins with. Another form gets another name.
const FORM: &str = "agentforge.audit.1";

/// A SHA-256. Zeros before the first entry of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// The text is not a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAHash;

impl fmt::Display for NotAHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hash has 64 hexadecimal digits")
    }
}

impl std::error::Error for NotAHash {}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAHash)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = NotAHash;

    fn try_from(bytes: &[u8]) -> Result<Self, NotAHash> {
        bytes.try_into().map(Self).map_err(|_| NotAHash)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The last entry of a chain, by its place (from 1) and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Which chain.
    pub chain: i64,
    /// The place of its last entry; 0 when it has none.
    pub place: i64,
    /// The hash of its last entry.
    pub hash: Hash,
}

/// An entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chained {
    /// Which chain.
    pub chain: i64,
    /// Its place in the chain, from 1.
    pub place: i64,
    /// The hash of the entry before.
    pub previous: Hash,
    /// Its own.
    pub hash: Hash,
    /// What it says.
    pub entry: Entry,
}

impl Head {
    /// The beginning of a chain.
    pub fn first(chain: i64) -> Self {
        Self { chain, place: 0, hash: Hash::default() }
    }

    /// Gives `entry` the next place; the head is that place afterwards.
    pub fn append(&mut self, entry: Entry) -> Chained {
        let entry = entry.bounded();
        let (chain, place, previous) = (self.chain, self.place + 1, self.hash);
        let hash = hash(chain, place, &previous, &entry);
        (self.place, self.hash) = (place, hash);
        Chained { chain, place, previous, hash, entry }
    }
}

impl Chained {
    /// The hash that its content has.
    pub fn computed(&self) -> Hash {
        hash(self.chain, self.place, &self.previous, &self.entry)
    }
}

/// The hash of the canonical form: a JSON array of all that is stored, in this order.
fn hash(chain: i64, place: i64, previous: &Hash, e: &Entry) -> Hash {
    let who = (&e.surface, &e.principal, &e.role, &e.address, &e.request_id);
    let what = (&e.operation, &e.object_kind, &e.object_id, &e.outcome, e.calls, &e.detail);
    let form = serde_json::to_vec(&(FORM, chain, place, previous, &e.id, e.at.0, who, what))
        .expect("texts and numbers are always JSON");
    Hash(Sha256::digest(form).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_proto::time::Micros;

    fn entry() -> Entry {
        Entry {
            id: "01a1fd98-49e6-720a-ab05-e03bd3d8231b".into(),
            address: Some("127.0.0.1".into()),
            request_id: None,
            ..Entry::own("CancelJob", &serde_json::json!({"before": "queued"}), Micros(7))
        }
    }

    #[test]
    fn the_canonical_form_is_frozen() {
        let mut head = Head::first(0);
        let first = head.append(entry());
        // Stored chains have this hash: it never changes.
        assert_eq!(first.hash.to_string(), "5881358da51e11e25a94b784d406e77ce0fcd7743ca1ca076ff1a4120467e25c");
        assert_eq!(head, Head { chain: 0, place: 1, hash: first.hash });
        assert_eq!(head.append(entry()).previous, first.hash);
    }

    #[test]
    fn every_field_is_covered() {
        let chained = Head::first(0).append(entry());
        let base = chained.computed();
        let changes: Vec<fn(&mut Chained)> = vec![
            |c| c.chain = 1,
            |c| c.place = 2,
            |c| c.previous = Hash([1; 32]),
            |c| c.entry.id.push('x'),
            |c| c.entry.at = Micros(8),
            |c| c.entry.surface.push('x'),
            |c| c.entry.principal.push('x'),
            |c| c.entry.role.push('x'),
            |c| c.entry.address = None,
            |c| c.entry.request_id = Some(String::new()),
            |c| c.entry.operation.push('x'),
            |c| c.entry.object_kind.push('x'),
            |c| c.entry.object_id = Some("x".into()),
            |c| c.entry.outcome.push('x'),
            |c| c.entry.calls = 2,
            |c| c.entry.detail = None,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = chained.clone();
            change(&mut other);
            assert_ne!(other.computed(), base, "change {number}");
        }
    }
}

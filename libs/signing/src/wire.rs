//! The header's value: base64 of version, key, validity, place in the group, signature and path. Pure.

use crate::keys::KeyId;
use crate::merkle::Hash;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

const VERSION: u8 = 1;
/// Everything but the path.
const FIXED_BYTES: usize = 1 + KeyId::BYTES + 8 + 8 + 2 + 2 + 64;
/// Longest path that is read: of a group of 1,024. Ours are shorter; a later version may have larger groups.
const PATH_MAX: usize = 10;
/// Longest text that is read at all.
const TEXT_BYTES_MAX: usize = (FIXED_BYTES + PATH_MAX * 32).div_ceil(3) * 4;
/// What a signature is about, so that none of another kind is taken for one.
const DOMAIN: &[u8] = b"agentforge:group:v1";

/// What is signed of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) key: KeyId,
    /// Milliseconds since 1970.
    pub(crate) issued: u64,
    /// From then on it is not valid, milliseconds since 1970.
    pub(crate) until: u64,
    pub(crate) size: u16,
}

impl Statement {
    /// The signed bytes.
    pub(crate) fn bytes(&self, root: &Hash) -> Vec<u8> {
        let (issued, until, size) = (self.issued.to_be_bytes(), self.until.to_be_bytes(), self.size.to_be_bytes());
        [DOMAIN, &self.key.0, &issued, &until, &size, root].concat()
    }
}

/// A message's header, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) statement: Statement,
    pub(crate) index: u16,
    pub(crate) signature: [u8; 64],
    pub(crate) path: Vec<Hash>,
}

impl Proof {
    pub(crate) fn write(&self) -> String {
        let s = &self.statement;
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.path.len() * 32);
        bytes.push(VERSION);
        bytes.extend(s.key.0);
        bytes.extend(s.issued.to_be_bytes());
        bytes.extend(s.until.to_be_bytes());
        bytes.extend(s.size.to_be_bytes());
        bytes.extend(self.index.to_be_bytes());
        bytes.extend(self.signature);
        self.path.iter().for_each(|hash| bytes.extend(hash));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` where the text is not a signature of this version, or longer than any that is read.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (fixed, path) = bytes.split_at_checked(FIXED_BYTES)?;
        let (hashes, rest) = path.as_chunks::<32>();
        if fixed[0] != VERSION || !rest.is_empty() || hashes.len() > PATH_MAX {
            return None;
        }
        let mut rest = &fixed[1..];
        let key = KeyId(take(&mut rest)?);
        let (issued, until) = (u64::from_be_bytes(take(&mut rest)?), u64::from_be_bytes(take(&mut rest)?));
        let (size, index) = (u16::from_be_bytes(take(&mut rest)?), u16::from_be_bytes(take(&mut rest)?));
        let signature = take(&mut rest)?;
        Some(Self { statement: Statement { key, issued, until, size }, index, signature, path: hashes.to_vec() })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let statement = Statement { key: KeyId([1; 8]), issued: 2, until: 3, size: 1024 };
        for n in 0..=PATH_MAX {
            let proof = Proof { statement, index: 5, signature: [9; 64], path: vec![[n as u8; 32]; n] };
            let text = proof.write();
            assert_eq!(Proof::read(&text), Some(proof));
            for cut in [1, 2, 40] {
                assert_eq!(Proof::read(&text[..text.len() - cut]), None);
            }
        }
        let long = Proof { statement, index: 5, signature: [9; 64], path: vec![[0; 32]; PATH_MAX + 1] };
        assert_eq!(Proof::read(&long.write()), None, "longer than any group");
        let other_version = format!("C{}", &long.write()[1..]);
        for text in ["", "A", "not base64!", &other_version, &"A".repeat(100_000)] {
            assert_eq!(Proof::read(text), None);
        }
    }
}

//! Verifying a message by itself: its path to the root, and the root's signature once for each group.

use crate::keys::PublicKeys;
use crate::merkle::{Leaf, root};
use crate::wire::Proof;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Groups whose signature was verified lately and is not verified again.
const VERIFIED_MAX: usize = 1_024;

/// Why a message is not an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has no signature.
    #[error("it is not signed")]
    Unsigned,
    /// Its signature cannot be read.
    #[error("its signature is malformed, or of a version that is not known here")]
    Malformed,
    /// Signed with a key that is not among those that verify.
    #[error("it is signed with a key that is not trusted here")]
    UnknownKey,
    /// The signature is of another message.
    #[error("its signature does not belong to it: subject, message id or body differ from what was signed")]
    Wrong,
    /// It was signed too long ago.
    #[error("its signature is too old")]
    Stale,
}

impl Refused {
    /// All of them, as words.
    pub const WORDS: [&str; 5] = ["unsigned", "malformed", "unknown_key", "wrong", "stale"];

    /// A stable short name, for labels.
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

/// A message whose signature is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified(());

/// Public keys, and the groups that were verified with them.
#[derive(Debug, Default)]
pub struct Verifier(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    keys: PublicKeys,
    verified: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Verifier {
    /// Verifies with these.
    pub fn new(keys: PublicKeys) -> Self {
        Self(Mutex::new(Inner { keys, ..Inner::default() }))
    }

    /// Verifies with these from now on; what was verified with others is forgotten.
    pub fn replace(&self, keys: PublicKeys) {
        *self.inner() = Inner { keys, ..Inner::default() };
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a message is what was signed, at `now` in milliseconds since 1970.
    ///
    /// # Errors
    /// Why it is not.
    pub fn verify(&self, header: Option<&str>, leaf: Leaf, now: u64) -> Result<Verified, Refused> {
        let proof = Proof::read(header.ok_or(Refused::Unsigned)?).ok_or(Refused::Malformed)?;
        let (index, size) = (usize::from(proof.index), usize::from(proof.statement.size));
        let root = root(leaf, index, size, &proof.path).ok_or(Refused::Malformed)?;
        let bytes = proof.statement.bytes(&root);
        let name: [u8; 32] = digest(&SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes");
        let key = {
            let inner = self.inner();
            let key = *inner.keys.0.get(&proof.statement.key).ok_or(Refused::UnknownKey)?;
            (!inner.verified.contains(&name)).then_some(key)
        };
        // Not under the lock: it takes as long as everything else of a short job.
        if let Some(key) = key {
            UnparsedPublicKey::new(&ED25519, &key).verify(&bytes, &proof.signature).map_err(|_| Refused::Wrong)?;
            self.inner().note(name, &proof, key);
        }
        if now >= proof.statement.until { Err(Refused::Stale) } else { Ok(Verified(())) }
    }
}

impl Inner {
    fn note(&mut self, name: [u8; 32], proof: &Proof, key: [u8; 32]) {
        // The keys may have been replaced meanwhile.
        if self.keys.0.get(&proof.statement.key) != Some(&key) || !self.verified.insert(name) {
            return;
        }
        self.order.push_back(name);
        if self.order.len() > VERIFIED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.verified.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GROUP_MAX, Signer, leaf, new_private_pem};

    fn signer() -> Signer {
        Signer::from_pem(&new_private_pem().unwrap()).unwrap()
    }

    fn leaves(n: usize) -> Vec<Leaf> {
        (0..n).map(|i| leaf("swarm.jobs.dev.default", &format!("j:{i}"), b"{}")).collect()
    }

    #[test]
    fn each_message_of_a_group_is_verified_by_itself_and_no_other() {
        let signer = signer();
        let verifier = Verifier::new(signer.public_keys());
        for size in [1, 2, 3, 7, GROUP_MAX - 1, GROUP_MAX, GROUP_MAX + 1, 3 * GROUP_MAX + 5] {
            let all = leaves(size);
            // Another moment for each group: a statement that was signed once is good for every message below it.
            let headers = signer.sign(&all, size as u64, 2_000);
            assert_eq!(headers.len(), size);
            for (n, header) in headers.iter().enumerate() {
                assert!(verifier.verify(Some(header), all[n], 1_500).is_ok(), "{n} of {size}");
                let other = leaf("swarm.jobs.dev.default", &format!("j:{n}"), b"{ }");
                assert_eq!(verifier.verify(Some(header), other, 1_500), Err(Refused::Wrong));
                if size > 1 {
                    assert_eq!(verifier.verify(Some(header), all[(n + 1) % size], 1_500), Err(Refused::Wrong));
                }
            }
        }
        assert!(verifier.inner().order.len() <= VERIFIED_MAX);
    }

    #[test]
    fn every_byte_of_the_header_counts() {
        let signer = signer();
        let all = leaves(5);
        let header = signer.sign(&all, 1_000, 2_000).remove(2);
        for n in 0..header.len() {
            let other = if header.as_bytes()[n] == b'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &header[..n], &header[n + 1..]);
            // Fresh each time: nothing is verified already.
            assert!(Verifier::new(signer.public_keys()).verify(Some(&changed), all[2], 1_500).is_err(), "{n}");
        }
    }

    #[test]
    fn refusals_say_why() {
        let (signer, stranger) = (signer(), signer());
        let one = leaves(1)[0];
        let header = signer.sign(&[one], 1_000, 2_000).remove(0);
        let verifier = Verifier::new(signer.public_keys());
        let verify = |header: Option<&str>, now| verifier.verify(header, one, now).map(|_| ());
        assert_eq!(verify(None, 1_500), Err(Refused::Unsigned));
        assert_eq!(verify(Some("x"), 1_500), Err(Refused::Malformed));
        assert_eq!(verify(Some(&stranger.sign(&[one], 1_000, 2_000)[0]), 1_500), Err(Refused::UnknownKey));
        assert_eq!(verify(Some(&header), 1_999), Ok(()));
        assert_eq!(verify(Some(&header), 2_000), Err(Refused::Stale), "also when it was verified before");
        verifier.replace(stranger.public_keys());
        assert_eq!(verify(Some(&header), 1_500), Err(Refused::UnknownKey), "also when it was verified before");
        verifier.replace(stranger.public_keys().and(signer.public_keys()));
        assert_eq!(verify(Some(&header), 1_500), Ok(()));
        assert_eq!(Refused::WORDS[Refused::Stale as usize], Refused::Stale.as_str());
    }

    /// The owner of an old signature cannot give it a longer life.
    #[test]
    fn validity_is_signed() {
        let signer = signer();
        let one = leaves(1)[0];
        let mut proof = Proof::read(&signer.sign(&[one], 1_000, 2_000)[0]).unwrap();
        proof.statement.until = 9_000;
        let verifier = Verifier::new(signer.public_keys());
        assert_eq!(verifier.verify(Some(&proof.write()), one, 1_500), Err(Refused::Wrong));
    }
}

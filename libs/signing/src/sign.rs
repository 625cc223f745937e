//! What a private key does: it signs groups of messages, and makes and recognises task tokens.

use crate::keys::{Key, KeyError, PublicKeys, private_keys};
use crate::merkle::{Leaf, tree};
use crate::token::Task;
use crate::wire::{Proof, Statement};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::fmt;
use subtle::ConstantTimeEq;

/// Messages of one signature. A larger group saves about a microsecond a message, and makes each message larger: its path
/// has one hash for every doubling.
pub const GROUP_MAX: usize = 32;

/// Private keys. The first signs; tokens of all are good.
pub struct Signer(Vec<Key>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

impl Signer {
    /// The keys of a PEM file: one or more private keys in PKCS#8.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        private_keys(text).map(Self)
    }

    fn first(&self) -> &Key {
        self.0.first().expect("there is no signer without a key")
    }

    /// The public parts of all keys.
    pub fn public_keys(&self) -> PublicKeys {
        PublicKeys(self.0.iter().map(|key| (key.id, key.public)).collect())
    }

    /// Signs messages: the header of each, in their order. `issued` and `until` are milliseconds since 1970.
    pub fn sign(&self, leaves: &[Leaf], issued: u64, until: u64) -> Vec<String> {
        leaves.chunks(GROUP_MAX).flat_map(|group| self.sign_group(group, issued, until)).collect()
    }

    fn sign_group(&self, leaves: &[Leaf], issued: u64, until: u64) -> Vec<String> {
        let Some((root, paths)) = tree(leaves) else { return Vec::new() };
        let key = self.first();
        let size = u16::try_from(leaves.len()).expect("a group is small");
        let statement = Statement { key: key.id, issued, until, size };
        let signature = key.pair.sign(&statement.bytes(&root));
        let signature = signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        let proof = |(index, path)| Proof { statement, index, signature, path }.write();
        (0..size).zip(paths).map(proof).collect()
    }

    /// The token of an attempt, by the key that signs.
    pub fn token(&self, task: &Task<'_>) -> String {
        URL_SAFE_NO_PAD.encode(task.token(&self.first().tokens))
    }

    /// Whether a token is the attempt's, by any of the keys: an attempt that was published before a rotation ends after
    /// it. Takes as long for a wrong one as for a right one.
    pub fn is_token_of(&self, task: &Task<'_>, token: &str) -> bool {
        let Some(claimed) = URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == crate::token::BYTES)
        else {
            return false;
        };
        self.0.iter().fold(false, |found, key| found | bool::from(task.token(&key.tokens).ct_eq(&claimed)))
    }
}

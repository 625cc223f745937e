//! Keys: private ones as PKCS#8 PEM, public ones as SubjectPublicKeyInfo PEM, as `openssl genpkey -algorithm ed25519` and
//! `openssl pkey -pubout` write them. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::collections::BTreeMap;
use std::fmt;

/// Keys of one file.
pub const KEYS_MAX: usize = 16;

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// What the DER of every Ed25519 public key begins with; the 32 bytes of the key follow.
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What follows length and version in the DER of every Ed25519 private key; the 32 bytes of the seed follow.
const PRIVATE_PREFIX: [u8; 11] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Length and version before it, for a key without its public part.
const PRIVATE_HEAD: [u8; 5] = [0x30, 0x2e, 0x02, 0x01, 0x00];
const ID_DOMAIN: &[u8] = b"agentforge:key:v1";

/// What is wrong with keys. Never shows a part of them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// No PEM block of the kind.
    #[error("it has no {0}: lines between -----BEGIN {0}----- and -----END {0}-----")]
    None(&'static str),
    /// A block that is not an Ed25519 key.
    #[error("its block {0} is not an Ed25519 key; `agentforge keys new` makes one")]
    NotAKey(usize),
    /// More than [`KEYS_MAX`].
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
}

/// A key's name: the first bytes of the hash of its public part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) [u8; KeyId::BYTES]);

impl KeyId {
    pub(crate) const BYTES: usize = 8;

    fn of(public: &[u8; 32]) -> Self {
        let hash = digest::digest(&digest::SHA256, &[ID_DOMAIN, public].concat());
        Self(hash.as_ref()[..Self::BYTES].try_into().expect("a hash has more than 8 bytes"))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Keys that signatures are verified with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicKeys(pub(crate) BTreeMap<KeyId, [u8; 32]>);

impl PublicKeys {
    /// The keys of a PEM file, at least one.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let ders = blocks(text, PUBLIC)?;
        Self::of(ders.iter().enumerate().map(|(n, der)| public(der).ok_or(KeyError::NotAKey(n + 1))))
    }

    /// The keys of a list: each is the one line between the marks of its PEM block.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_list(text: &str) -> Result<Self, KeyError> {
        let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        if items.is_empty() {
            return Err(KeyError::None(PUBLIC));
        }
        let key = |(n, item): (usize, &&str)| {
            STANDARD.decode(item).ok().and_then(|der| public(&der)).ok_or(KeyError::NotAKey(n + 1))
        };
        Self::of(items.iter().enumerate().map(key))
    }

    fn of(keys: impl Iterator<Item = Result<[u8; 32], KeyError>>) -> Result<Self, KeyError> {
        let keys = keys.map(|key| key.map(|key| (KeyId::of(&key), key))).collect::<Result<BTreeMap<_, _>, _>>()?;
        if keys.len() > KEYS_MAX { Err(KeyError::TooMany) } else { Ok(Self(keys)) }
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Their names.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.0.keys().copied()
    }

    /// As a list for a setting, see [`Self::from_list`].
    pub fn to_list(&self) -> String {
        self.0.values().map(|key| STANDARD.encode(public_der(key))).collect::<Vec<_>>().join(",")
    }

    /// As PEM.
    pub fn to_pem(&self) -> String {
        self.0.values().map(|key| pem(PUBLIC, &public_der(key))).collect()
    }
}

/// A private key, and what is derived from it.
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) public: [u8; 32],
    pub(crate) pair: Ed25519KeyPair,
    pub(crate) tokens: ring::hmac::Key,
}

/// The private keys of a PEM file, in their order.
pub(crate) fn private_keys(text: &str) -> Result<Vec<Key>, KeyError> {
    let ders = blocks(text, PRIVATE)?;
    ders.iter().enumerate().map(|(n, der)| key(der).ok_or(KeyError::NotAKey(n + 1))).collect()
}

fn key(der: &[u8]) -> Option<Key> {
    let seed: &[u8; 32] = der.get(PRIVATE_HEAD.len()..)?.strip_prefix(&PRIVATE_PREFIX)?.first_chunk()?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let public: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
    Some(Key { id: KeyId::of(&public), public, pair, tokens: crate::token::key(seed) })
}

/// A new private key.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_private_pem() -> Result<String, std::io::Error> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
    Ok(pem(PRIVATE, &[PRIVATE_HEAD.as_slice(), &PRIVATE_PREFIX, &seed].concat()))
}

fn public(der: &[u8]) -> Option<[u8; 32]> {
    der.strip_prefix(&PUBLIC_PREFIX)?.try_into().ok()
}

fn public_der(key: &[u8; 32]) -> Vec<u8> {
    [PUBLIC_PREFIX.as_slice(), key].concat()
}

fn pem(kind: &str, der: &[u8]) -> String {
    // One line: 44 and 48 bytes are 60 and 64 characters.
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
}

/// What is between the marks of each block of the kind. A block that is not base64 is an empty one: not a key.
fn blocks(text: &str, kind: &'static str) -> Result<Vec<Vec<u8>>, KeyError> {
    let (begin, end) = (format!("-----BEGIN {kind}-----"), format!("-----END {kind}-----"));
    let body = |part: &str| {
        let base64: String = part.split_once(&end).map_or("", |(body, _)| body).split_whitespace().collect();
        STANDARD.decode(base64).unwrap_or_default()
    };
    let blocks: Vec<_> = text.split(&begin).skip(1).take(KEYS_MAX + 1).map(body).collect();
    match blocks.len() {
        0 => Err(KeyError::None(kind)),
        n if n > KEYS_MAX => Err(KeyError::TooMany),
        _ => Ok(blocks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` wrote them, and RFC 8410, 10.3.
    const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    /// The same key with its public part and an attribute, RFC 8410, 10.3.
    const WITH_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----\nMHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\noB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\nZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PRIVATE KEY-----\n";

    #[test]
    fn keys_of_openssl_and_of_the_rfc_are_read() {
        let public = PublicKeys::from_pem(PUBLIC_PEM).unwrap();
        for text in [PRIVATE_PEM, WITH_PUBLIC] {
            let keys = private_keys(text).unwrap();
            assert_eq!(public.0, BTreeMap::from([(keys[0].id, keys[0].public)]));
        }
        assert_eq!(public.to_pem(), PUBLIC_PEM);
        assert_eq!(PublicKeys::from_list(&format!(" {},", public.to_list())), Ok(public));
    }

    #[test]
    fn new_keys_differ_and_are_read() {
        let (a, b) = (new_private_pem().unwrap(), new_private_pem().unwrap());
        let both = private_keys(&format!("# a comment\n{a}{b}")).unwrap();
        assert_eq!(both.len(), 2);
        assert_ne!(both[0].id, both[1].id);
    }

    #[test]
    fn what_is_no_key_is_named_by_its_place() {
        assert_eq!(private_keys(PUBLIC_PEM).err(), Some(KeyError::None(PRIVATE)));
        assert_eq!(PublicKeys::from_pem("").err(), Some(KeyError::None(PUBLIC)));
        let second = format!("{PUBLIC_PEM}-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
        assert_eq!(PublicKeys::from_pem(&second).err(), Some(KeyError::NotAKey(2)));
        assert_eq!(
            PublicKeys::from_pem(PUBLIC_PEM.split_once("-----END").unwrap().0).err(),
            Some(KeyError::NotAKey(1))
        );
        assert_eq!(PublicKeys::from_list("x").err(), Some(KeyError::NotAKey(1)));
        assert_eq!(private_keys(&PRIVATE_PEM.repeat(KEYS_MAX + 1)).err(), Some(KeyError::TooMany));
    }
}

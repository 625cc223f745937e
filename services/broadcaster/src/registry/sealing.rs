//! Encrypts the document of the managed endpoints, so that reading the bucket is not enough to read their secrets.
//!
//! AES-256-GCM with a random nonce. The key of the bucket's entry is authenticated too: a document that was copied from
//! another environment does not open. Whole documents are sealed, because URLs and headers may be secrets as well.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};

/// The first seals, all open: a rotation needs two.
const KEYS_MAX: usize = 4;
/// The format of a sealed document.
const VERSION: u8 = 1;

/// The keys of documents. None: documents are stored as they are.
#[derive(Clone, Default)]
pub struct StateKeys(Vec<LessSafeKey>);

/// A sealed document, as the bucket contains it. One that is not sealed has no field `sealed`.
#[derive(Serialize, Deserialize)]
struct Sealed {
    sealed: u8,
    nonce: String,
    /// So named that a version without keys finds text where it needs endpoints, and fails: without the field it would
    /// read that there are no endpoints, and remove them.
    #[serde(rename = "endpoints")]
    data: String,
}

/// A document that was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub bytes: Vec<u8>,
    /// Whether it is stored as it would be stored now.
    pub is_current: bool,
}

/// Why a document does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is sealed, and no key is set.
    #[error("the endpoints of the API are encrypted, and BROADCASTER_STATE_KEY is not set")]
    NoKey,
    /// It was sealed with another key, or changed since.
    #[error("no key of BROADCASTER_STATE_KEY opens the endpoints of the API")]
    WrongKey,
    /// A newer version sealed it.
    #[error("the endpoints of the API are encrypted in a format that this version does not know")]
    UnknownFormat,
}

impl std::fmt::Debug for StateKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateKeys({})", self.0.len())
    }
}

impl StateKeys {
    /// Reads keys as the setting has them: base64, with commas.
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (at, key) in text.split(',').enumerate() {
            let bytes = STANDARD.decode(key.trim()).map_err(|_| format!("key {} is not base64", at + 1))?;
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| {
                format!("key {} has {} bytes; {} are needed", at + 1, bytes.len(), AES_256_GCM.key_len())
            })?;
            keys.push(LessSafeKey::new(key));
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("has {} keys; {KEYS_MAX} are allowed", keys.len()));
        }
        Ok(Self(keys))
    }

    /// The bytes to store: sealed with the first key, if there is one.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub(super) fn seal(&self, document: Vec<u8>, name: &str) -> Vec<u8> {
        let Some(key) = self.0.first() else { return document };
        let (mut nonce, mut data) = ([0; NONCE_LEN], document);
        SystemRandom::new().fill(&mut nonce).expect("the system gives random bytes");
        let sealing = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut data);
        sealing.expect("a document is far below the limit of the algorithm");
        let sealed = Sealed { sealed: VERSION, nonce: STANDARD.encode(nonce), data: STANDARD.encode(data) };
        serde_json::to_vec(&sealed).expect("strings and a number are JSON")
    }

    /// The document of stored bytes. One that is not sealed opens as it is, so that keys can be introduced.
    pub(super) fn open(&self, stored: &[u8], name: &str) -> Result<Opened, SealError> {
        let Ok(sealed) = serde_json::from_slice::<Sealed>(stored) else {
            return Ok(Opened { bytes: stored.to_vec(), is_current: self.0.is_empty() });
        };
        if sealed.sealed != VERSION {
            return Err(SealError::UnknownFormat);
        }
        if self.0.is_empty() {
            return Err(SealError::NoKey);
        }
        let nonce = STANDARD.decode(&sealed.nonce).ok().and_then(|nonce| <[u8; NONCE_LEN]>::try_from(nonce).ok());
        let (Some(nonce), Ok(data)) = (nonce, STANDARD.decode(&sealed.data)) else { return Err(SealError::WrongKey) };
        for (at, key) in self.0.iter().enumerate() {
            let mut bytes = data.clone();
            let nonce = Nonce::assume_unique_for_key(nonce);
            if let Ok(document) = key.open_in_place(nonce, Aad::from(name), &mut bytes) {
                return Ok(Opened { bytes: document.to_vec(), is_current: at == 0 });
            }
        }
        Err(SealError::WrongKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> String {
        STANDARD.encode([byte; 32])
    }

    #[test]
    fn a_document_opens_with_each_of_its_keys_and_nowhere_else() {
        let document = br#"{"endpoints":{"a":{"secrets":["hunter2"]}}}"#.to_vec();
        let (none, old) = (StateKeys::default(), StateKeys::parse(&key(1)).unwrap());
        let (both, new) =
            (StateKeys::parse(&format!("{}, {}", key(2), key(1))).unwrap(), StateKeys::parse(&key(2)).unwrap());
        let opened = |is_current| Ok(Opened { bytes: document.clone(), is_current });
        // Without a key as before; with one a document that is not sealed opens, and is to be sealed.
        assert_eq!(none.seal(document.clone(), "_made.dev"), document);
        assert_eq!(
            (none.open(&document, "_made.dev"), old.open(&document, "_made.dev")),
            (opened(true), opened(false))
        );

        let sealed = old.seal(document.clone(), "_made.dev");
        assert!(!String::from_utf8_lossy(&sealed).contains("hunter2"));
        let read = serde_json::from_slice::<crate::registry::managed::ManagedEndpoints>(&sealed);
        assert!(read.is_err(), "a version without keys must not read that there are none");
        assert_ne!(old.seal(document.clone(), "_made.dev"), sealed, "each time with another nonce");
        assert_eq!((old.open(&sealed, "_made.dev"), both.open(&sealed, "_made.dev")), (opened(true), opened(false)));
        assert_eq!(none.open(&sealed, "_made.dev"), Err(SealError::NoKey));
        assert_eq!(new.open(&sealed, "_made.dev"), Err(SealError::WrongKey));
        assert_eq!(old.open(&sealed, "_made.prod"), Err(SealError::WrongKey), "another environment's");
        assert_eq!(
            new.open(&both.seal(document.clone(), "_made.dev"), "_made.dev"),
            opened(true),
            "the first key seals"
        );

        let mut changed: Sealed = serde_json::from_slice(&sealed).unwrap();
        let mut data = STANDARD.decode(&changed.data).unwrap();
        data[0] ^= 1;
        changed.data = STANDARD.encode(data);
        assert_eq!(old.open(&serde_json::to_vec(&changed).unwrap(), "_made.dev"), Err(SealError::WrongKey));
        changed.sealed = 2;
        assert_eq!(old.open(&serde_json::to_vec(&changed).unwrap(), "_made.dev"), Err(SealError::UnknownFormat));
    }

    #[test]
    fn wrong_keys_are_described_without_their_value() {
        for (text, words) in [
            ("hunter2!", "key 1 is not base64"),
            (&*format!("{},aHVudGVyMg==", key(1)), "key 2 has 7 bytes; 32 are needed"),
            (&*[&*key(1); 5].join(","), "has 5 keys"),
            ("", "key 1 has 0 bytes"),
        ] {
            let problem = StateKeys::parse(text).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
        assert_eq!(format!("{:?}", StateKeys::parse(&key(1)).unwrap()), "StateKeys(1)");
    }
}

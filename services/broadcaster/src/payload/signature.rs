//! Standard Webhooks signatures: `v1` (HMAC-SHA256) and `v1a` (Ed25519), several during a rotation.
//!
//! Pure. Signs `<id>.<timestamp>.<body>` over the very bytes that are sent. Keys are never shown.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{hmac, signature::Ed25519KeyPair};
use std::fmt;

/// What a shared secret begins with.
const SHARED: &str = "whsec_";
/// What a private key begins with.
const PRIVATE: &str = "whsk_";
/// The standard asks for 24 to 64 bytes of a shared secret.
const SHARED_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// A private key is only the seed, or the seed and the public key.
const SEED_BYTES: usize = 32;

/// A key of one of the two kinds of Standard Webhooks.
enum Key {
    /// A secret that both ends have; its signatures begin with `v1,`.
    Shared(hmac::Key),
    /// A private key, of which the receiver has the public one; its signatures begin with `v1a,`.
    Private(Box<Ed25519KeyPair>),
}

/// Signs for one endpoint, with every key that it has.
#[derive(Default)]
pub struct Signer(Vec<Key>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} keys)", self.0.len())
    }
}

/// Why a secret is none. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It begins with neither prefix.
    #[error("is neither a shared secret (whsec_…) nor a private key (whsk_…)")]
    Prefix,
    /// The text after the prefix is not base64.
    #[error("is not base64 after its prefix")]
    Base64,
    /// A shared secret of the wrong size.
    #[error("has {0} bytes; a shared secret has 24 to 64")]
    SharedSize(usize),
    /// No Ed25519 key.
    #[error("is not an Ed25519 private key: 32 bytes of seed, or 64 with the public key that belongs to it")]
    Private,
}

impl Signer {
    /// Takes secrets as they are written: `whsec_<base64>` and `whsk_<base64>`.
    ///
    /// # Errors
    /// The first that is none, by its place from 1.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, KeyError)> {
        let keys = secrets.into_iter().enumerate().map(|(at, secret)| key(secret).map_err(|e| (at + 1, e)));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is no key: then nothing is signed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `webhook-signature`: one signature a key, with spaces between.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut number = itoa::Buffer::new();
        let timestamp = number.format(timestamp);
        let mut value = String::with_capacity(self.0.len() * 96);
        for key in &self.0 {
            if !value.is_empty() {
                value.push(' ');
            }
            match key {
                Key::Shared(key) => {
                    let mut context = hmac::Context::with_key(key);
                    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                        context.update(part);
                    }
                    value.push_str("v1,");
                    STANDARD.encode_string(context.sign(), &mut value);
                }
                Key::Private(key) => {
                    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
                    value.push_str("v1a,");
                    STANDARD.encode_string(key.sign(&message), &mut value);
                }
            }
        }
        value
    }
}

fn key(secret: &str) -> Result<Key, KeyError> {
    let decoded = |text: &str| STANDARD.decode(text.trim()).map_err(|_| KeyError::Base64);
    if let Some(text) = secret.trim().strip_prefix(SHARED) {
        let bytes = decoded(text)?;
        if !SHARED_BYTES.contains(&bytes.len()) {
            return Err(KeyError::SharedSize(bytes.len()));
        }
        return Ok(Key::Shared(hmac::Key::new(hmac::HMAC_SHA256, &bytes)));
    }
    let text = secret.trim().strip_prefix(PRIVATE).ok_or(KeyError::Prefix)?;
    let bytes = decoded(text)?;
    let pair = match bytes.split_at_checked(SEED_BYTES) {
        Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
        Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
        None => return Err(KeyError::Private),
    };
    Ok(Key::Private(Box::new(pair.map_err(|_| KeyError::Private)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn the_reference_vector_passes() {
        let signer = Signer::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
        let signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_key_signs_in_the_order_given() {
        let seed = format!("whsk_{}", STANDARD.encode([7u8; 32]));
        let signer = Signer::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &seed]).unwrap();
        let value = signer.sign("m", 1, b"{}");
        let parts: Vec<_> = value.split(' ').map(|s| s.split_once(',').unwrap().0).collect();
        assert_eq!(parts, ["v1", "v1a"]);
        assert_eq!(Signer::default().sign("m", 1, b"{}"), "");
    }

    #[test]
    fn what_is_no_key_says_why_and_not_what() {
        let short = format!("whsec_{}", STANDARD.encode([1u8; 8]));
        let wrong_public = format!("whsk_{}", STANDARD.encode([1u8; 64]));
        for (bad, expected) in [
            ("hunter2hunter2", KeyError::Prefix),
            ("whsec_???", KeyError::Base64),
            (short.as_str(), KeyError::SharedSize(8)),
            ("whsk_AAAA", KeyError::Private),
            (wrong_public.as_str(), KeyError::Private),
        ] {
            let (at, error) = Signer::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", bad]).unwrap_err();
            assert_eq!((at, error), (2, expected));
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}

//! The signature over the checksums: its format, whose it is, and whether it is a rollback.
//!
//! Keys are Ed25519. Trust comes only from pinned keys, never from what a bundle says about itself.

use super::sums::{Artifact, Checksums};
use crate::artifact::canonical;
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The format that is written.
pub const FORMAT: u32 = 2;

/// checksums-signature.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signature {
    /// 2; 1 covered only the aggregate and the count.
    pub signature_format_version: u32,
    /// Always `ed25519`.
    pub algorithm: String,
    /// Over the list of artifacts.
    pub aggregate_sha256: String,
    /// How many artifacts.
    pub count: usize,
    /// What was signed; a signature of format 1 has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// When, in seconds since 1970; orders signed states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<i64>,
    /// Whose signature it is, base64.
    pub public_key: String,
    /// The signature, base64.
    pub signature: String,
    /// Keys before this one, each with its own signature: who pinned them can still verify.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_public_keys: Vec<Endorsement>,
}

/// The signature of a key that is being replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endorsement {
    /// The earlier key, base64.
    pub public_key: String,
    /// Its signature over the same text, base64.
    pub signature: String,
}

/// A key that signs.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// From the base64 of the 32-byte seed.
    ///
    /// # Errors
    /// It is something else; the message never has it.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        let seed = STANDARD.decode(text.trim()).map_err(|_| "the private key is not base64".to_owned())?;
        Self::from_seed(&seed)
    }

    /// From the 32-byte seed.
    ///
    /// # Errors
    /// It has another length.
    pub fn from_seed(seed: &[u8]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        pair.map(Self).map_err(|_| format!("the private key has {} bytes; a seed has 32", seed.len()))
    }

    /// The public key, base64.
    #[must_use]
    pub fn public(&self) -> String {
        STANDARD.encode(self.0.public_key())
    }

    fn sign(&self, text: &str) -> String {
        STANDARD.encode(self.0.sign(text.as_bytes()))
    }
}

/// The text that is signed: canonical JSON of what the format covers.
#[must_use]
pub fn payload(signature: &Signature) -> String {
    let mut covered = json!({"aggregate_sha256": signature.aggregate_sha256, "count": signature.count});
    if signature.signature_format_version >= FORMAT {
        covered["artifacts"] = json!(signature.artifacts);
        if let Some(at) = signature.signed_at {
            covered["signed_at"] = Value::from(at);
        }
    }
    canonical(&covered)
}

/// Signs checksums, also with the keys that are being replaced.
#[must_use]
pub fn sign(sums: &Checksums, key: &SigningKey, previous: &[SigningKey], at: i64) -> Signature {
    let mut signature = Signature {
        signature_format_version: FORMAT,
        algorithm: "ed25519".to_owned(),
        aggregate_sha256: sums.aggregate_sha256.clone(),
        count: sums.count,
        artifacts: sums.artifacts.clone(),
        signed_at: Some(at),
        public_key: key.public(),
        signature: String::new(),
        previous_public_keys: Vec::new(),
    };
    let text = payload(&signature);
    signature.signature = key.sign(&text);
    signature.previous_public_keys =
        previous.iter().map(|old| Endorsement { public_key: old.public(), signature: old.sign(&text) }).collect();
    signature
}

/// Whether a pinned key made the signature; what is wrong if not.
///
/// # Errors
/// The format is not accepted, no pinned key signed, or a signature does not fit.
pub fn trusted(signature: &Signature, pinned: &[String], allow_v1: bool) -> Result<(), String> {
    match signature.signature_format_version {
        FORMAT => {}
        1 if allow_v1 => {}
        1 => return Err("format 1 does not cover the files; it is accepted with --allow-v1 only".to_owned()),
        other => return Err(format!("format {other} is unknown")),
    }
    if signature.algorithm != "ed25519" {
        return Err(format!("algorithm {:?} is not ed25519", signature.algorithm));
    }
    let own = Endorsement { public_key: signature.public_key.clone(), signature: signature.signature.clone() };
    let text = payload(signature);
    let mut candidates = std::iter::once(&own)
        .chain(&signature.previous_public_keys)
        .filter(|e| pinned.contains(&e.public_key))
        .peekable();
    if candidates.peek().is_none() {
        return Err(format!("signed with another key: {} is not pinned", signature.public_key));
    }
    if candidates.any(|one| verifies(one, &text)) {
        Ok(())
    } else {
        Err("the signature does not fit what it covers".to_owned())
    }
}

fn verifies(one: &Endorsement, text: &str) -> bool {
    let decoded = |text: &str| STANDARD.decode(text).ok();
    let (Some(key), Some(signature)) = (decoded(&one.public_key), decoded(&one.signature)) else { return false };
    UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok()
}

/// The newest signed state that a verifier saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Over its artifacts.
    pub aggregate_sha256: String,
    /// When it was signed.
    pub signed_at: i64,
}

/// What to remember after this state; what is wrong with its age if it is a rollback.
///
/// # Errors
/// It is older than what was seen, is another one of the same moment, or does not say when it was signed.
pub fn newer(signature: &Signature, seen: Option<&Seen>) -> Result<Seen, String> {
    let Some(signed_at) = signature.signed_at.filter(|_| signature.signature_format_version >= FORMAT) else {
        return Err("the signature does not say when it was made, so a rollback cannot be excluded".to_owned());
    };
    let now = Seen { aggregate_sha256: signature.aggregate_sha256.clone(), signed_at };
    match seen {
        Some(seen) if signed_at < seen.signed_at => {
            Err(format!("rollback: signed at {signed_at}, and a state of {} was seen", seen.signed_at))
        }
        Some(seen) if signed_at == seen.signed_at && *seen != now => {
            Err(format!("rollback: another state of the same moment {signed_at} was seen"))
        }
        _ => Ok(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(names: [&str; 2]) -> Checksums {
        Checksums::of(names.iter().map(|n| Artifact { path: (*n).to_owned(), sha256: format!("{n:0>64}") }).collect())
    }

    #[test]
    fn swapped_names_change_the_aggregate() {
        let hashes = ["a".repeat(64), "b".repeat(64)];
        let of = |first: &str, second: &str| {
            let artifact = |path: &str, sha256: &String| Artifact { path: path.to_owned(), sha256: sha256.clone() };
            Checksums::of(vec![artifact(first, &hashes[0]), artifact(second, &hashes[1])]).aggregate_sha256
        };
        assert_ne!(of("x", "y"), of("y", "x"));
        assert_eq!(of("x", "y"), of("x", "y"));
    }

    #[test]
    fn trust_comes_from_pinned_keys_alone() {
        let key = |n: u8| SigningKey::from_seed(&[n; 32]).unwrap();
        let pin = |n: u8| vec![key(n).public()];
        let signed = sign(&sums(["a", "b"]), &key(1), &[key(2)], 7);
        assert_eq!(trusted(&signed, &pin(1), false), Ok(()));
        assert_eq!(trusted(&signed, &pin(2), false), Ok(()), "the key before endorsed it");
        assert!(trusted(&signed, &pin(3), false).unwrap_err().contains("another key"));
        // An attacker lists the pinned key as the one before.
        let mut forged = sign(&sums(["a", "c"]), &key(9), &[], 8);
        forged.previous_public_keys = signed.previous_public_keys.clone();
        assert!(trusted(&forged, &pin(2), false).unwrap_err().contains("does not fit"));
        for change in [
            |s: &mut Signature| s.artifacts[0].path = "c".to_owned(),
            |s: &mut Signature| s.count = 3,
            |s: &mut Signature| s.signed_at = Some(8),
            |s: &mut Signature| s.signed_at = None,
            |s: &mut Signature| s.aggregate_sha256 = "0".repeat(64),
        ] {
            let mut changed = signed.clone();
            change(&mut changed);
            assert!(trusted(&changed, &pin(1), true).is_err(), "{changed:?}");
        }
        // The old format, whose signature covers less.
        let mut old = signed;
        old.signature_format_version = 1;
        old.signature = key(1).sign(&payload(&old));
        assert!(trusted(&old, &pin(1), false).unwrap_err().contains("--allow-v1"));
        assert_eq!(trusted(&old, &pin(1), true), Ok(()));
    }

    #[test]
    fn an_older_state_is_a_rollback() {
        let of = |names, at| sign(&sums(names), &SigningKey::from_seed(&[1; 32]).unwrap(), &[], at);
        let (first, second) = (of(["a", "b"], 7), of(["a", "c"], 8));
        let seen = newer(&second, Some(&newer(&first, None).unwrap())).unwrap();
        assert_eq!(newer(&second, Some(&seen)), Ok(seen.clone()), "the same again");
        assert!(newer(&first, Some(&seen)).unwrap_err().contains("rollback"));
        assert!(newer(&of(["a", "d"], 8), Some(&seen)).unwrap_err().contains("same moment"));
        let mut timeless = second;
        timeless.signed_at = None;
        assert!(newer(&timeless, None).is_err());
    }

    #[test]
    fn a_wrong_private_key_is_refused_and_not_repeated() {
        for wrong in ["secret!", "c2VjcmV0", ""] {
            let message = SigningKey::from_base64(wrong).err().unwrap();
            assert!(wrong.is_empty() || !message.contains(wrong), "{message}");
        }
    }
}

//! Task tokens: what a worker must return with a result, and cannot make up.
//!
//! A token is an HMAC by a key that only the orchestrator has, derived from its signing key, over what the attempt is. It
//! is not stored: it is computed again when the result comes.

use ring::hmac::{HMAC_SHA256, Key, sign};

const KEY_DOMAIN: &[u8] = b"agentforge:task-token:v1";
/// Of the HMAC's 32 bytes: 128 bits are beyond guessing.
pub(crate) const BYTES: usize = 16;

/// The key of tokens that belongs to a signing key.
pub(crate) fn key(seed: &[u8; 32]) -> Key {
    let derived = sign(&Key::new(HMAC_SHA256, seed), KEY_DOMAIN);
    Key::new(HMAC_SHA256, derived.as_ref())
}

/// An attempt, as a token is bound to it.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Mission of the job.
    pub mission: &'a str,
    /// Its queue: a result counts only from there.
    pub queue: &'a str,
    /// The job's id, as text.
    pub job: &'a str,
    /// Which try of it.
    pub attempt: u32,
}

impl Task<'_> {
    pub(crate) fn token(&self, key: &Key) -> [u8; BYTES] {
        let mut text = Vec::with_capacity(256);
        for part in [self.mission, self.queue, self.job] {
            text.extend((part.len() as u64).to_be_bytes());
            text.extend(part.as_bytes());
        }
        text.extend(self.attempt.to_be_bytes());
        *sign(key, &text).as_ref().first_chunk().expect("an HMAC has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Signer, new_private_pem};

    const TASK: Task<'_> = Task { mission: "dev", queue: "default", job: "j", attempt: 1 };

    #[test]
    fn a_token_is_good_for_one_attempt_of_one_job_in_one_queue() {
        let signer = Signer::from_pem(&new_private_pem().unwrap()).unwrap();
        let token = signer.token(&TASK);
        assert_eq!(token.len(), 22);
        assert!(signer.is_token_of(&TASK, &token));
        for other in [
            Task { mission: "prod", ..TASK },
            Task { queue: "b", ..TASK },
            Task { job: "k", ..TASK },
            Task { attempt: 2, ..TASK },
            Task { mission: "devdefault", queue: "", ..TASK },
        ] {
            assert!(!signer.is_token_of(&other, &token), "{other:?}");
        }
        for wrong in ["", "A", &token[1..], &format!("{token}A"), &"A".repeat(22), &token.repeat(1000), "ü"] {
            assert!(!signer.is_token_of(&TASK, wrong), "{wrong}");
        }
    }

    #[test]
    fn tokens_of_a_key_are_good_as_long_as_it_is_in_the_file() {
        let (old, new) = (new_private_pem().unwrap(), new_private_pem().unwrap());
        let before = Signer::from_pem(&old).unwrap().token(&TASK);
        let after = Signer::from_pem(&format!("{new}{old}")).unwrap();
        assert!(after.is_token_of(&TASK, &before));
        assert_ne!(after.token(&TASK), before);
        assert!(!Signer::from_pem(&new).unwrap().is_token_of(&TASK, &before));
    }
}

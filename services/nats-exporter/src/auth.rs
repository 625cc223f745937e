//! Who may read the page: one user with one password, plain or as a bcrypt hash.
//!
//! Comparisons take the same time wherever the difference is. A bcrypt check takes long on purpose: one
//! runs at a time, and what was right once is recognised by its keyed hash, so that a scraper does not
//! cost it at every scrape.

use agentforge_config::{ExposeSecret, Secret};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{hmac, rand::SystemRandom};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Semaphore;

/// Longer credentials are refused before anything is computed.
const HEADER_MAX_BYTES: usize = 4096;
/// Each step doubles the time of a check; 14 is about a second.
const COST_MAX: u32 = 14;

/// Shortest password that is given in plain, characters; that of every secret.
const PASSWORD_CHARS_MIN: usize = 16;

/// Why a password cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user name.
    #[error("a user name cannot have a colon")]
    User,
    /// It looks like a hash and is none.
    #[error("the password begins like a bcrypt hash but is not one")]
    Hash,
    /// Each scrape would take seconds.
    #[error("the bcrypt hash has a cost above {COST_MAX}")]
    Cost,
    /// It could be guessed.
    #[error("the password has fewer than {PASSWORD_CHARS_MIN} characters; a bcrypt hash may be of any")]
    Short,
    /// There is no randomness.
    #[error("the system provides no random numbers")]
    Random,
}

/// The check of the header `Authorization`. Cheap to clone.
#[derive(Clone)]
pub struct BasicAuth(Arc<Inner>);

struct Inner {
    key: hmac::Key,
    user: hmac::Tag,
    password: Password,
    /// The last credentials that passed a bcrypt check.
    known: Mutex<Option<hmac::Tag>>,
    checks: Semaphore,
}

enum Password {
    Plain(hmac::Tag),
    Bcrypt(Secret),
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicAuth")
    }
}

impl BasicAuth {
    /// For one user. A password that begins with `$2` is a bcrypt hash.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(user: &str, password: &Secret) -> Result<Self, Error> {
        if user.contains(':') {
            return Err(Error::User);
        }
        let text = password.expose_secret();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| Error::Random)?;
        let password = if text.starts_with("$2") {
            let hash: bcrypt::HashParts = text.parse().map_err(|_| Error::Hash)?;
            if hash.get_cost() > COST_MAX {
                return Err(Error::Cost);
            }
            Password::Bcrypt(password.clone())
        } else if text.chars().count() < PASSWORD_CHARS_MIN {
            return Err(Error::Short);
        } else {
            Password::Plain(hmac::sign(&key, text.as_bytes()))
        };
        let user = hmac::sign(&key, user.as_bytes());
        Ok(Self(Arc::new(Inner { key, user, password, known: Mutex::default(), checks: Semaphore::new(1) })))
    }

    /// Whether the header's value lets its sender in.
    pub async fn admits(&self, header: Option<&[u8]>) -> bool {
        let Some((user, password)) = header.and_then(credentials) else { return false };
        let inner = &self.0;
        // Both are always computed, so that the time says nothing about the user name.
        let is_user = inner.is(&inner.user, user.as_bytes());
        let is_password = match &inner.password {
            Password::Plain(tag) => inner.is(tag, password.as_bytes()),
            Password::Bcrypt(hash) => self.is_hashed(&password, hash).await,
        };
        is_user & is_password
    }

    async fn is_hashed(&self, password: &str, hash: &Secret) -> bool {
        let inner = &self.0;
        let known = *inner.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|tag| inner.is(&tag, password.as_bytes())) {
            return true;
        }
        let _one = inner.checks.acquire().await.expect("the semaphore is never closed");
        let (given, hash) = (Secret::from(password.to_owned()), hash.clone());
        let check = move || bcrypt::verify(given.expose_secret(), hash.expose_secret()).unwrap_or(false);
        let is_right = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        if is_right {
            let tag = hmac::sign(&inner.key, password.as_bytes());
            *inner.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(tag);
        }
        is_right
    }
}

impl Inner {
    /// Compares keyed hashes, in a time that does not depend on either.
    fn is(&self, expected: &hmac::Tag, given: &[u8]) -> bool {
        hmac::verify(&self.key, given, expected.as_ref()).is_ok()
    }
}

/// User and password of a `Basic` header.
fn credentials(header: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(header).ok().filter(|text| text.len() <= HEADER_MAX_BYTES)?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "a:b c of sixteen";

    fn header(user: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes()
    }

    async fn checks(auth: &BasicAuth) {
        for _ in 0..2 {
            assert!(auth.admits(Some(&header("prom", PASSWORD))).await);
        }
        for bad in
            [header("prom", "a:b of sixteen"), header("prom", ""), header("x", PASSWORD), b"Bearer x".to_vec(), vec![]]
        {
            assert!(!auth.admits(Some(&bad)).await, "{bad:?}");
        }
        assert!(!auth.admits(None).await);
        assert!(!auth.admits(Some(&header("prom", &"x".repeat(HEADER_MAX_BYTES)))).await);
    }

    #[tokio::test]
    async fn plain_and_hashed_passwords_let_the_right_one_in() {
        checks(&BasicAuth::new("prom", &Secret::from(PASSWORD)).unwrap()).await;
        let hash = bcrypt::hash(PASSWORD, 4).unwrap();
        checks(&BasicAuth::new("prom", &Secret::from(hash.replace("$2b$", "$2a$"))).unwrap()).await;
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let of = |user: &str, password: &str| BasicAuth::new(user, &Secret::from(password)).map(|_| ());
        assert!(matches!(of("a:b", "x"), Err(Error::User)));
        assert!(matches!(of("a", "fifteen-letters"), Err(Error::Short)));
        assert!(matches!(of("a", "$2a$nonsense"), Err(Error::Hash)));
        let costly = bcrypt::hash("x", 4).unwrap().replace("$04$", "$15$");
        assert!(matches!(of("a", &costly), Err(Error::Cost)));
    }
}

//! Passwords: argon2id, version 19, 19,456 KiB of memory, 2 passes, 1 lane, 16 random bytes of salt, 32 bytes of hash.
//!
//! A check takes the same time for a user who does not exist. Few run at once: each takes 19 MiB and a core.

use super::keys::random;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};

/// Memory of a check, KiB.
const MEMORY_KIB: u32 = 19_456;
/// Passes over it.
const PASSES: u32 = 2;
/// Checks at once.
const CHECKS_MAX: usize = 2;
/// Checks that wait; further ones are refused.
const WAITING_MAX: usize = 64;
/// How long one waits.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Shortest password, characters.
pub const CHARS_MIN: usize = 12;
/// Longest password, bytes: longer ones are not even hashed.
pub const BYTES_MAX: usize = 256;

/// What checks passwords. Cheap to clone; all clones share the places.
#[derive(Clone, Debug)]
pub struct Passwords {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// The hash of a password that no one has.
    nobody: Arc<str>,
}

/// Too many passwords are checked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are checked at once")]
pub struct Busy;

impl Passwords {
    /// Takes the time of one check.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new() -> Result<Self, String> {
        let nobody = hash_now(&random().map_err(|e| e.to_string())?)?;
        Ok(Self { places: Arc::new(Semaphore::new(CHECKS_MAX)), waiting: Arc::default(), nobody: nobody.into() })
    }

    /// Whether it is the password of this hash; without a hash it is never right, after the same work.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn is_right(&self, password: &str, hash: Option<&str>) -> Result<bool, Busy> {
        let (password, is_known) = (password.to_owned(), hash.is_some());
        let hash: Arc<str> = hash.map_or_else(|| self.nobody.clone(), Into::into);
        let is_right = self.run(move || argon().verify_password(password.as_bytes(), &*hash).is_ok()).await?;
        Ok(is_right && is_known)
    }

    /// The hash to store.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn hash(&self, password: &str) -> Result<String, Busy> {
        let password = password.to_owned();
        self.run(move || hash_now(&password)).await?.map_err(|_| Busy)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let _waits = Waits::enter(&self.waiting)?;
        let place = timeout(WAIT_MAX, self.places.clone().acquire_owned()).await.map_err(|_| Busy)?;
        let place = place.map_err(|_| Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        done.await.map_err(|_| Busy)
    }
}

/// A caller that waits or works; counted until it is dropped.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn enter(count: &Arc<AtomicUsize>) -> Result<Self, Busy> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let this = Self(count.clone());
        if before < WAITING_MAX + CHECKS_MAX { Ok(this) } else { Err(Busy) }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a new password must be.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn check_new(user: &str, password: &str) -> Result<(), String> {
    if password.chars().count() < CHARS_MIN {
        return Err(format!("a password has at least {CHARS_MIN} characters"));
    }
    if password.len() > BYTES_MAX {
        return Err(format!("a password has at most {BYTES_MAX} bytes"));
    }
    if password.to_lowercase().contains(&user.to_lowercase()) {
        return Err("a password does not have the user's name in it".to_owned());
    }
    let mut different: Vec<char> = password.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < 5 {
        return Err("a password has at least 5 different characters".to_owned());
    }
    Ok(())
}

/// The hash of a password, in PHC form. Takes tens of milliseconds.
///
/// # Errors
/// The system gives no random bytes.
pub fn hash_now(password: &str) -> Result<String, String> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| "the system gives no random bytes".to_owned())?;
    argon().hash_password_with_salt(password.as_bytes(), &salt).map(|hash| hash.to_string()).map_err(|e| e.to_string())
}

fn argon() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).expect("the parameters are within argon2's ranges");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_states_its_parameters_and_fits_one_password() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse battery").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_eq!(passwords.is_right("correct horse battery", Some(&hash)).await, Ok(true));
        assert_eq!(passwords.is_right("correct horse batterY", Some(&hash)).await, Ok(false));
        assert_eq!(passwords.is_right("", None).await, Ok(false));
        assert_ne!(hash, passwords.hash("correct horse battery").await.unwrap(), "each has a salt of its own");
    }

    #[test]
    fn weak_ones_are_refused() {
        for (password, word) in
            [("short", "12 characters"), ("aaaaaaaaaaaaaaaa", "different"), ("xx-Alice-xx-1234", "name")]
        {
            assert!(check_new("alice", password).unwrap_err().contains(word), "{password}");
        }
        assert!(check_new("alice", &"ab1cd".repeat(60)).unwrap_err().contains("256"));
        assert!(check_new("alice", "correct horse battery").is_ok());
    }
}

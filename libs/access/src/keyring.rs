//! What is accepted now, shared by all who check: it changes while the service runs.
//!
//! Does no I/O: who reads the file and fetches keys gives the result here.

use crate::{
    file::TokenFile,
    jwt::{Denials, Remembered, is_jwt, issuer::Issuer, keys::KeySet, verify},
    principal::{Denied, Principal},
    tokens::{Tokens, digest},
};
use std::sync::{Arc, PoisonError, RwLock};

/// The tokens that are accepted now. All clones are the same keyring.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ring: RwLock<Arc<Ring>>,
    remembered: Remembered,
}

#[derive(Clone, Debug, Default)]
struct Ring {
    /// Those of the settings, which do not change.
    fixed: Tokens,
    /// With those of the file.
    tokens: Tokens,
    denials: Denials,
    /// Each with the keys that it has now.
    issuers: Vec<(Issuer, KeySet)>,
    /// Rises with each change.
    generation: u64,
}

impl Keyring {
    /// With the tokens and the issuers of the settings.
    pub fn new(fixed: Tokens, issuers: Vec<Issuer>) -> Self {
        let issuers = issuers.into_iter().map(|issuer| (issuer, KeySet::default())).collect();
        let ring = Ring { tokens: fixed.clone(), fixed, issuers, ..Ring::default() };
        Self(Arc::new(Inner { ring: RwLock::new(Arc::new(ring)), remembered: Remembered::default() }))
    }

    /// Takes what the file has now, in place of what it had.
    ///
    /// # Errors
    /// The name that a token of the file shares with one of the settings: nothing is changed then.
    pub fn replace(&self, file: &TokenFile) -> Result<(), String> {
        if let Some(name) = self.ring().fixed.shared_name(&file.tokens) {
            return Err(name.to_owned());
        }
        self.change(|ring| {
            ring.tokens = ring.fixed.and(&file.tokens);
            ring.denials = file.denials.clone();
        });
        Ok(())
    }

    /// Takes the keys that an issuer has now, by its place. Says whether they are others than before.
    pub fn set_keys(&self, issuer: usize, keys: KeySet) -> bool {
        let is_new = self.ring().issuers.get(issuer).is_some_and(|(_, known)| *known != keys);
        if is_new {
            self.change(|ring| {
                if let Some((_, known)) = ring.issuers.get_mut(issuer) {
                    *known = keys;
                }
            });
        }
        is_new
    }

    /// The URLs of the issuers, in their places.
    pub fn issuers(&self) -> Vec<String> {
        self.ring().issuers.iter().map(|(issuer, _)| issuer.url.clone()).collect()
    }

    /// Whether keys of an issuer are known.
    pub fn has_keys(&self, issuer: usize) -> bool {
        self.ring().issuers.get(issuer).is_some_and(|(_, keys)| !keys.is_empty())
    }

    /// The tokens that are accepted now.
    pub fn tokens(&self) -> Tokens {
        self.ring().tokens.clone()
    }

    fn ring(&self) -> Arc<Ring> {
        self.0.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Ring)) {
        let mut ring = self.0.ring.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = (**ring).clone();
        change(&mut next);
        next.generation += 1;
        *ring = Arc::new(next);
    }

    /// Whose token this is.
    pub(crate) fn check(&self, token: &[u8], now: i64) -> Result<Principal, Denied> {
        let (ring, digest) = (self.ring(), digest(token));
        let known = ring.tokens.holder_of(&digest, now);
        if known != Err(Denied::Unknown) || ring.issuers.is_empty() || !is_jwt(token) {
            return known;
        }
        if let Some(principal) = self.0.remembered.get(&digest, ring.generation, now) {
            return Ok(principal);
        }
        let verified = verify(token, &ring.issuers, &ring.denials, now)?;
        self.0.remembered.put(digest, ring.generation, verified.clone(), now);
        Ok(verified.principal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guard::Guard, role::Role};
    use http::HeaderValue;

    const FIXED: &str = "0123456789abcdef-fixed";
    const FILED: &str = "0123456789abcdef-filed";

    #[test]
    fn a_change_of_the_file_counts_from_the_next_request() {
        let keyring = Keyring::new(Tokens::parse(&format!("ops:admin:{FIXED}").into()).unwrap(), Vec::new());
        let guard = Guard::Keyring(keyring.clone());
        let check = |token: &str, now| {
            let header = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            guard.check_at(Some(&header), Role::Read, now).map(|p| p.name.to_string())
        };
        let file = |text: &str| keyring.replace(&TokenFile::parse(text).unwrap());
        let line = TokenFile::line("ci", Role::Submit, &digest(FILED), Some(1_000), &Default::default());
        assert_eq!(check(FILED, 1), Err(Denied::Unknown));
        file(&line).unwrap();
        assert_eq!((check(FILED, 999).unwrap(), check(FIXED, 999).unwrap()), ("ci".into(), "ops".into()));
        assert_eq!(check(FILED, 1_000), Err(Denied::Expired("ci".into())), "its end needs no restart");
        file("").unwrap();
        assert_eq!((check(FILED, 1), check(FIXED, 1).unwrap()), (Err(Denied::Unknown), "ops".into()));
        // A name is one caller.
        let line = TokenFile::line("ops", Role::Read, &digest(FILED), None, &Default::default());
        assert_eq!(file(&line), Err("ops".to_owned()));
        assert_eq!(check(FILED, 1), Err(Denied::Unknown));
    }
}

//! The tokens that are accepted, as digests.
//!
//! SHA-256 without salt or stretching is right for them: a token has at least 96 random bits, so that no list of likely
//! ones exists to be tried against a digest, and a check costs a microsecond. (For a password neither would hold.) A
//! token is found by its digest: a caller who measures the time of a search learns about digests only, which it cannot
//! steer towards one of ours.

use crate::{
    principal::{Denied, Principal},
    role::Role,
    scopes::Scopes,
};
use agentforge_config::{ExposeSecret, Secret};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, sync::Arc};

/// Shortest token, and shortest secret of any setting, characters: 16 of base64 are 96 bits.
pub const TOKEN_CHARS_MIN: usize = 16;
/// Longest token, characters.
pub const TOKEN_CHARS_MAX: usize = 512;
/// Most tokens of [`Tokens::parse`]: more belong into a file.
pub const TOKENS_MAX: usize = 100;

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// Tokens, each with a name and a role. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<HashMap<TokenDigest, Token>>);

/// Who has a token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The caller.
    pub principal: Principal,
    /// The first second, since 1970, in which the token is not accepted any more.
    pub expires: Option<i64>,
}

/// Why a list of tokens was refused. Names the entry by its position, never its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// There is no entry at all.
    #[error("has no entries; expected name:role:token, comma separated")]
    Empty,
    /// There are more entries than allowed.
    #[error("has {0} entries; at most {TOKENS_MAX} are allowed")]
    TooMany(usize),
    /// One entry is wrong.
    #[error("entry {position} {problem}")]
    Entry {
        /// Counted from 1.
        position: usize,
        /// What is wrong with it, as the rest of the sentence.
        problem: &'static str,
    },
}

impl Tokens {
    /// Secrets that share a name and a role: a surface with one kind of caller.
    pub fn sharing<'s>(name: &str, role: Role, secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let principal = Principal { name: name.into(), role, scopes: Scopes::ALL };
        let token =
            |secret: &Secret| (digest(secret.expose_secret()), Token { principal: principal.clone(), expires: None });
        Self(Arc::new(secrets.into_iter().map(token).collect()))
    }

    /// Of entries whose digests differ.
    pub(crate) fn of(tokens: HashMap<TokenDigest, Token>) -> Self {
        Self(Arc::new(tokens))
    }

    /// Those of both. Where both have a token, the first's entry counts.
    pub fn and(&self, others: &Self) -> Self {
        let mut all: HashMap<_, _> = (*others.0).clone();
        all.extend(self.0.iter().map(|(digest, token)| (*digest, token.clone())));
        Self(Arc::new(all))
    }

    /// The name that both have, if there is one.
    pub fn shared_name(&self, others: &Self) -> Option<&str> {
        let names: Vec<_> = others.0.values().map(|token| &*token.principal.name).collect();
        self.0.values().map(|token| &*token.principal.name).find(|name| names.contains(name))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The moments at which tokens end, with their names.
    pub fn expiries(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.values().filter_map(|token| Some((&*token.principal.name, token.expires?)))
    }

    /// Reads `name:role:token` entries, comma separated.
    ///
    /// # Errors
    /// [`TokensError`] names the first entry at fault by its position.
    pub fn parse(text: &Secret) -> Result<Self, TokensError> {
        let entries: Vec<&str> = text.expose_secret().split(',').map(str::trim).collect();
        if entries.iter().all(|e| e.is_empty()) {
            return Err(TokensError::Empty);
        }
        if entries.len() > TOKENS_MAX {
            return Err(TokensError::TooMany(entries.len()));
        }
        let mut tokens: HashMap<TokenDigest, Token> = HashMap::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let at = |problem| TokensError::Entry { position: i + 1, problem };
            let (digest, token) = parse_entry(entry).map_err(at)?;
            if tokens.values().any(|t| t.principal.name == token.principal.name) {
                return Err(at("has the name of an earlier entry"));
            }
            if tokens.insert(digest, token).is_some() {
                return Err(at("has the token of an earlier entry"));
            }
        }
        Ok(Self(Arc::new(tokens)))
    }

    /// Who has this token.
    pub fn find(&self, token: &[u8]) -> Option<&Token> {
        self.0.get(&digest(token))
    }

    /// Who has this token, if it is still valid then, in seconds since 1970.
    ///
    /// # Errors
    /// `Unknown`, `Expired`.
    pub fn holder(&self, token: &[u8], now: i64) -> Result<Principal, Denied> {
        self.holder_of(&digest(token), now)
    }

    pub(crate) fn holder_of(&self, digest: &TokenDigest, now: i64) -> Result<Principal, Denied> {
        let token = self.0.get(digest).ok_or(Denied::Unknown)?;
        match token.expires {
            Some(end) if end <= now => Err(Denied::Expired(token.principal.name.clone())),
            _ => Ok(token.principal.clone()),
        }
    }
}

/// SHA-256.
pub fn digest(token: impl AsRef<[u8]>) -> TokenDigest {
    Sha256::digest(token).into()
}

/// Whether a text may be the name of a token: it appears in logs and in audits. `deny` begins another kind of line in
/// the file.
pub fn is_name(name: &str) -> bool {
    name != "deny"
        && (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// What is wrong with a text as a token or another secret, as the rest of a sentence.
///
/// # Errors
/// The problem.
pub fn check_secret(text: &str) -> Result<(), &'static str> {
    if text.chars().count() < TOKEN_CHARS_MIN {
        return Err("has a token of fewer than 16 characters");
    }
    if text.len() > TOKEN_CHARS_MAX {
        return Err("has a token of more than 512 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("has a token with characters other than visible ASCII");
    }
    Ok(())
}

fn parse_entry(entry: &str) -> Result<(TokenDigest, Token), &'static str> {
    let mut parts = entry.splitn(3, ':');
    let (Some(name), Some(role), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("is not name:role:token");
    };
    if !is_name(name) {
        return Err("needs a name of 1 to 64 letters, digits, dots, hyphens or underscores");
    }
    let role = Role::from_word(role).ok_or("needs one of the roles viewer, submitter, operator, alerts, admin")?;
    check_secret(token)?;
    let principal = Principal { name: name.into(), role, scopes: Scopes::ALL };
    Ok((digest(token), Token { principal, expires: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_position_and_never_the_token() {
        let long = "x".repeat(513);
        let table = [
            ("", "has no entries"),
            (" , ", "has no entries"),
            ("a:read:0123456789abcdef,", "entry 2 is not name:role:token"),
            ("a:read", "entry 1 is not name:role:token"),
            ("a b:read:0123456789abcdef", "entry 1 needs a name"),
            ("a:root:0123456789abcdef", "entry 1 needs one of the roles"),
            ("a:read:0123456789abcde", "entry 1 has a token of fewer than 16"),
            (&format!("a:read:{long}"), "entry 1 has a token of more than 512"),
            ("a:read:0123456789 abcdef", "entry 1 has a token with characters"),
            ("a:viewer:0123456789abcdef,a:read:0123456789abcdeg", "entry 2 has the name"),
            ("a:read:0123456789abcdef,b:admin:0123456789abcdef", "entry 2 has the token"),
        ];
        for (text, want) in table {
            let got = Tokens::parse(&text.to_owned().into()).unwrap_err().to_string();
            assert!(got.starts_with(want), "{text:?}: {got}");
            assert!(!got.contains("0123456789"), "{got}");
        }
        let many = vec!["a:read:0123456789abcdef"; TOKENS_MAX + 1].join(",");
        assert_eq!(Tokens::parse(&many.into()).unwrap_err(), TokensError::TooMany(TOKENS_MAX + 1));
        let shown = format!("{:?}", Tokens::parse(&"ops:admin:0123456789abcdef".to_owned().into()).unwrap());
        assert!(shown.contains("ops") && !shown.contains("0123456789"), "{shown}");
    }

    #[test]
    fn each_of_several_secrets_is_found_and_nothing_else() {
        let secrets = ["new-secret", "old-secret", ""].map(|text| Secret::from(text.to_owned()));
        let tokens = Tokens::sharing("reader", Role::Read, &secrets[..2]);
        let found =
            |token: &str| tokens.find(token.as_bytes()).map(|t| (t.principal.name.to_string(), t.principal.role));
        for secret in ["new-secret", "old-secret"] {
            assert_eq!(found(secret), Some(("reader".to_owned(), Role::Read)), "{secret}");
        }
        for other in ["", "new-secre", "new-secret ", "New-secret", "new-secret,old-secret"] {
            assert_eq!(found(other), None, "{other:?}");
        }
        assert!(Tokens::sharing("reader", Role::Read, []).find(b"").is_none());
    }
}

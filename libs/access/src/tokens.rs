//! The tokens that are accepted, as digests.

use crate::role::Role;
use agentforge_config::{ExposeSecret, Secret};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Shortest token of [`Tokens::parse`], characters: 16 of base64 are 96 bits.
pub const TOKEN_CHARS_MIN: usize = 16;
/// Longest token of [`Tokens::parse`], characters.
pub const TOKEN_CHARS_MAX: usize = 512;
/// Most tokens of [`Tokens::parse`]: each request is compared with all of them.
pub const TOKENS_MAX: usize = 100;

/// Tokens, each with a name and a role. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<[Token]>);

struct Token {
    name: String,
    role: Role,
    digest: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
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
        let token = |secret: &Secret| Token { name: name.to_owned(), role, digest: digest(secret.expose_secret()) };
        Self(secrets.into_iter().map(token).collect())
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
        let mut tokens: Vec<Token> = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let at = |problem| TokensError::Entry { position: i + 1, problem };
            let token = parse_entry(entry).map_err(at)?;
            if tokens.iter().any(|t| t.name == token.name) {
                return Err(at("has the name of an earlier entry"));
            }
            if tokens.iter().any(|t| t.digest == token.digest) {
                return Err(at("has the token of an earlier entry"));
            }
            tokens.push(token);
        }
        Ok(Self(tokens.into()))
    }

    /// Name and role of a token. Every one is compared in full, so that the time shows nothing about which one was
    /// close.
    pub fn find(&self, token: &[u8]) -> Option<(&str, Role)> {
        let given = digest(token);
        let (mut found, mut index) = (Choice::from(0), 0u32);
        for (i, token) in (0u32..).zip(self.0.iter()) {
            let equal = token.digest.ct_eq(&given);
            index.conditional_assign(&i, equal);
            found |= equal;
        }
        let token = bool::from(found).then(|| self.0.get(index as usize)).flatten()?;
        Some((&token.name, token.role))
    }
}

fn digest(token: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn parse_entry(entry: &str) -> Result<Token, &'static str> {
    let mut parts = entry.splitn(3, ':');
    let (Some(name), Some(role), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("is not name:role:token");
    };
    let name_fits =
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !name_fits {
        return Err("needs a name of 1 to 64 letters, digits, dots, hyphens or underscores");
    }
    let Some(role) = Role::ALL.into_iter().find(|r| r.as_str() == role) else {
        return Err("needs one of the roles read, submit, admin");
    };
    if token.len() < TOKEN_CHARS_MIN {
        return Err("has a token of fewer than 16 characters");
    }
    if token.len() > TOKEN_CHARS_MAX {
        return Err("has a token of more than 512 characters");
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("has a token with characters other than visible ASCII");
    }
    Ok(Token { name: name.to_owned(), role, digest: digest(token) })
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
            ("a:read:0123456789abcdef,a:read:0123456789abcdeg", "entry 2 has the name"),
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
        for secret in ["new-secret", "old-secret"] {
            assert_eq!(tokens.find(secret.as_bytes()), Some(("reader", Role::Read)), "{secret}");
        }
        for other in ["", "new-secre", "new-secret ", "New-secret", "new-secret,old-secret"] {
            assert_eq!(tokens.find(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(Tokens::sharing("reader", Role::Read, []).find(b""), None);
    }
}

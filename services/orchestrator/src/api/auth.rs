//! Who may call: bearer tokens, each with a name and a role.
//!
//! Keeps SHA-256 digests only and compares them in constant time. Never shows or logs a token; what
//! an operation needs is written in `operations`.

use crate::error::{Code, Error};
use agentforge_config::{ExposeSecret, Secret};
use http::HeaderValue;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Shortest token, characters: 16 of base64 are 96 bits.
pub const TOKEN_MIN_CHARS: usize = 16;
/// Longest token, characters.
pub const TOKEN_MAX_CHARS: usize = 512;
/// Most tokens: each request is compared with all of them.
pub const TOKENS_MAX: usize = 100;
/// The name of callers when no tokens are set.
const ANYONE: &str = "anyone";

/// What a caller may do. Each role may do what the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read jobs, schedules and agents.
    Read,
    /// Submit and cancel jobs too.
    Submit,
    /// Redrive dead letters and change schedules too.
    Admin,
}

impl Role {
    /// All of them, the weakest first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Submit, Self::Admin];

    /// The word used in API_TOKENS and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

/// The tokens that are accepted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth(Option<Arc<[Token]>>);

struct Token {
    name: String,
    role: Role,
    digest: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Why API_TOKENS was refused. Names the entry by its position, never its text.
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

/// Reads `name:role:token` entries, comma separated.
///
/// # Errors
/// [`TokensError`] names the first entry at fault by its position.
pub fn parse_tokens(text: &Secret) -> Result<Auth, TokensError> {
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
    Ok(Auth(Some(tokens.into())))
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
    if token.len() < TOKEN_MIN_CHARS {
        return Err("has a token of fewer than 16 characters");
    }
    if token.len() > TOKEN_MAX_CHARS {
        return Err("has a token of more than 512 characters");
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("has a token with characters other than visible ASCII");
    }
    Ok(Token { name: name.to_owned(), role, digest: Sha256::digest(token).into() })
}

impl Auth {
    /// Everybody may do everything. Only for listeners that strangers cannot reach.
    pub const fn open() -> Self {
        Self(None)
    }

    /// Whether no tokens are asked for.
    pub const fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Lets a caller with the `Authorization` header pass, and returns its name.
    ///
    /// # Errors
    /// `unauthenticated` without a known token, `permission_denied` when its role is too weak.
    pub fn check(&self, authorization: Option<&HeaderValue>, needed: Role) -> Result<&str, Error> {
        let Some(tokens) = &self.0 else { return Ok(ANYONE) };
        let token = bearer(authorization)?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        // Every token is compared in full, so that timing does not reveal which one was close.
        let (mut found, mut index) = (Choice::from(0), 0u32);
        for (i, t) in (0u32..).zip(tokens.iter()) {
            let equal = t.digest.ct_eq(&digest);
            index.conditional_assign(&i, equal);
            found |= equal;
        }
        let token = bool::from(found).then(|| tokens.get(index as usize)).flatten();
        let Some(token) = token else {
            return Err(Error::new(Code::Unauthenticated, "the bearer token is not known"));
        };
        if token.role < needed {
            let (name, role) = (&token.name, token.role.as_str());
            let message =
                format!("this needs the role {}; the token {name} has the role {role} (API_TOKENS)", needed.as_str());
            return Err(Error::new(Code::PermissionDenied, message));
        }
        Ok(&token.name)
    }
}

/// The token of an `Authorization: Bearer` header (RFC 6750); the scheme's case does not matter.
fn bearer(authorization: Option<&HeaderValue>) -> Result<&[u8], Error> {
    let missing =
        || Error::new(Code::Unauthenticated, "a token is needed: send the header Authorization: Bearer <token>");
    let value = authorization.ok_or_else(missing)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(missing());
    }
    Ok(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = "0123456789abcdef-r";
    const SUBMIT: &str = "0123456789abcdef:s";
    const ADMIN: &str = "0123456789abcdef+a=";

    fn auth() -> Auth {
        parse_tokens(&format!("dash:read:{READ}, ci:submit:{SUBMIT},ops:admin:{ADMIN}").into()).unwrap()
    }

    fn check(auth: &Auth, header: Option<&str>, needed: Role) -> Result<String, Code> {
        let header = header.map(|h| HeaderValue::from_str(h).unwrap());
        auth.check(header.as_ref(), needed).map(str::to_owned).map_err(|e| e.code)
    }

    #[test]
    fn a_role_may_do_what_weaker_roles_may() {
        let auth = auth();
        let table = [(READ, Role::Read, "dash"), (SUBMIT, Role::Submit, "ci"), (ADMIN, Role::Admin, "ops")];
        for (token, has, name) in table {
            for needed in Role::ALL {
                let got = check(&auth, Some(&format!("Bearer {token}")), needed);
                let want = if needed <= has { Ok(name.to_owned()) } else { Err(Code::PermissionDenied) };
                assert_eq!(got, want, "{name} for {needed:?}");
            }
        }
    }

    #[test]
    fn without_a_known_token_nobody_passes() {
        let auth = auth();
        let almost = &ADMIN[..ADMIN.len() - 1];
        for header in
            [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic b3BzOng="), Some(almost), Some(ADMIN)]
        {
            assert_eq!(check(&auth, header, Role::Read), Err(Code::Unauthenticated), "{header:?}");
        }
        assert_eq!(check(&auth, Some(&format!("Bearer {almost}")), Role::Read), Err(Code::Unauthenticated));
        assert_eq!(check(&auth, Some(&format!("bearer  {ADMIN} ")), Role::Admin), Ok("ops".into()));
    }

    #[test]
    fn an_open_door_lets_everybody_in() {
        assert_eq!(check(&Auth::open(), None, Role::Admin), Ok(ANYONE.into()));
    }

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
            let got = parse_tokens(&text.to_owned().into()).unwrap_err().to_string();
            assert!(got.starts_with(want), "{text:?}: {got}");
            assert!(!got.contains("0123456789"), "{got}");
        }
        let shown = format!("{:?}", auth());
        assert!(shown.contains("ops") && !shown.contains("0123456789"), "{shown}");
    }
}

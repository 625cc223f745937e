//! Who may call: what [`agentforge_access`] finds, in the words of this API.
//!
//! What an operation needs is written in `operations`.

use crate::error::{Code, Error};
pub use agentforge_access::Role;
use agentforge_access::{Denied, Guard, Tokens, TokensError};
use agentforge_config::Secret;
use http::HeaderValue;

/// The check of callers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth(Guard);

/// Reads `name:role:token` entries, comma separated.
///
/// # Errors
/// [`TokensError`] names the first entry at fault by its position.
pub fn parse_tokens(text: &Secret) -> Result<Auth, TokensError> {
    Tokens::parse(text).map(|tokens| Auth(Guard::Tokens(tokens)))
}

impl Auth {
    /// Every caller may do everything. Only for listeners that strangers cannot reach.
    pub const fn open() -> Self {
        Self(Guard::Open)
    }

    /// Whether no tokens are asked for.
    pub const fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Lets a caller with the `Authorization` header pass, and gives its name.
    ///
    /// # Errors
    /// `unauthenticated` without a known token, `permission_denied` when its role is too weak.
    pub fn check(&self, authorization: Option<&HeaderValue>, needed: Role) -> Result<&str, Error> {
        let denied = match self.0.check(authorization, needed) {
            Ok(principal) => return Ok(principal.name),
            Err(denied) => denied,
        };
        let (code, message) = match denied {
            Denied::Missing | Denied::Closed => {
                (Code::Unauthenticated, "a token is needed: send the header Authorization: Bearer <token>".to_owned())
            }
            Denied::Unknown => (Code::Unauthenticated, "the bearer token is not known".to_owned()),
            Denied::Role(caller) => {
                let (needed, has, name) = (needed.as_str(), caller.role.as_str(), caller.name);
                let message = format!("this needs the role {needed}; the token {name} has the role {has} (API_TOKENS)");
                (Code::PermissionDenied, message)
            }
        };
        Err(Error::new(code, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_codes_and_say_what_is_needed() {
        let auth = parse_tokens(&"dash:read:0123456789abcdef".to_owned().into()).unwrap();
        let check =
            |header: Option<&'static str>, needed| auth.check(header.map(HeaderValue::from_static).as_ref(), needed);
        assert_eq!(check(Some("Bearer 0123456789abcdef"), Role::Read).unwrap(), "dash");
        for (header, part) in [(None, "Authorization: Bearer"), (Some("Bearer wrong"), "not known")] {
            let error = check(header, Role::Read).unwrap_err();
            assert_eq!(error.code, Code::Unauthenticated, "{header:?}");
            assert!(error.message.contains(part), "{}", error.message);
        }
        let error = check(Some("Bearer 0123456789abcdef"), Role::Admin).unwrap_err();
        assert_eq!(error.code, Code::PermissionDenied);
        assert!(error.message.contains("the role admin; the token dash has the role read"), "{}", error.message);
        assert_eq!(Auth::open().check(None, Role::Admin).unwrap(), "anyone");
    }
}

//! The check itself: a header in, a caller or a reason out. Pure.

use crate::{bearer::bearer, role::Role, tokens::Tokens};
use http::HeaderValue;

/// The name of callers where no token is asked for.
const ANYONE: &str = "anyone";

/// What a surface asks of its callers.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Nothing. Only for listeners that strangers cannot reach.
    Open,
    /// There is no token that it could ask for, and it is not open: no caller is admitted.
    Closed,
    /// One of these tokens.
    Tokens(Tokens),
}

/// A caller that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal<'g> {
    /// The name of its token.
    pub name: &'g str,
    /// What it may do.
    pub role: Role,
}

/// Why a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied<'g> {
    /// The surface is closed.
    Closed,
    /// The request has no bearer token.
    Missing,
    /// The token is not known.
    Unknown,
    /// The token's role does not include what is needed.
    Role(Principal<'g>),
}

impl Guard {
    /// Whether no token is asked for.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Who the caller with this `Authorization` header is, if it may do what `needed` allows.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, authorization: Option<&HeaderValue>, needed: Role) -> Result<Principal<'_>, Denied<'_>> {
        let tokens = match self {
            Self::Open => return Ok(Principal { name: ANYONE, role: Role::Admin }),
            Self::Closed => return Err(Denied::Closed),
            Self::Tokens(tokens) => tokens,
        };
        let token = bearer(authorization).ok_or(Denied::Missing)?;
        let (name, role) = tokens.find(token).ok_or(Denied::Unknown)?;
        let principal = Principal { name, role };
        if role < needed { Err(Denied::Role(principal)) } else { Ok(principal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = "0123456789abcdef-r";
    const SUBMIT: &str = "0123456789abcdef:s";
    const ADMIN: &str = "0123456789abcdef+a=";

    fn guard() -> Guard {
        Guard::Tokens(Tokens::parse(&format!("dash:read:{READ}, ci:submit:{SUBMIT},ops:admin:{ADMIN}").into()).unwrap())
    }

    fn check<'g>(guard: &'g Guard, header: Option<&str>, needed: Role) -> Result<&'g str, Denied<'g>> {
        let header = header.map(|text| HeaderValue::from_str(text).unwrap());
        guard.check(header.as_ref(), needed).map(|principal| principal.name)
    }

    #[test]
    fn a_role_may_do_what_weaker_roles_may() {
        let guard = guard();
        let table = [(READ, Role::Read, "dash"), (SUBMIT, Role::Submit, "ci"), (ADMIN, Role::Admin, "ops")];
        for (token, role, name) in table {
            for needed in Role::ALL {
                let want = if needed <= role { Ok(name) } else { Err(Denied::Role(Principal { name, role })) };
                assert_eq!(check(&guard, Some(&format!("Bearer {token}")), needed), want, "{name} for {needed:?}");
            }
        }
    }

    #[test]
    fn without_a_known_token_no_caller_passes() {
        let guard = guard();
        let almost = &ADMIN[..ADMIN.len() - 1];
        for header in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic b3BzOng="), Some(ADMIN)] {
            assert_eq!(check(&guard, header, Role::Read), Err(Denied::Missing), "{header:?}");
        }
        for wrong in [almost.to_owned(), format!("{ADMIN}x"), format!("x{ADMIN}"), ADMIN.to_uppercase()] {
            assert_eq!(check(&guard, Some(&format!("Bearer {wrong}")), Role::Read), Err(Denied::Unknown), "{wrong}");
        }
        assert_eq!(check(&guard, Some(&format!("bearer  {ADMIN} ")), Role::Admin), Ok("ops"));
    }

    #[test]
    fn an_open_guard_admits_all_and_a_closed_one_none() {
        let token = format!("Bearer {ADMIN}");
        for header in [None, Some("Basic x"), Some(&*token)] {
            assert_eq!(check(&Guard::Open, header, Role::Admin), Ok(ANYONE), "{header:?}");
            assert_eq!(check(&Guard::Closed, header, Role::Read), Err(Denied::Closed), "{header:?}");
        }
        assert!(Guard::Open.is_open() && !Guard::Closed.is_open() && !guard().is_open());
    }
}

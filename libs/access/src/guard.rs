//! The check itself: a header in, a caller or a reason out. Pure.

use crate::{
    bearer::bearer,
    certificate::certificate_digest,
    keyring::Keyring,
    principal::{Denied, JwtFault, Principal},
    role::Role,
    tokens::Tokens,
};
use http::HeaderValue;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a surface asks of its callers.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Nothing. Only for listeners that strangers cannot reach.
    Open,
    /// There is no token that it could ask for, and it is not open: no caller is admitted.
    Closed,
    /// One of these tokens.
    Tokens(Tokens),
    /// What the keyring has at the moment of the request.
    Keyring(Keyring),
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
    pub fn check(&self, authorization: Option<&HeaderValue>, needed: Role) -> Result<Principal, Denied> {
        self.check_at(authorization, needed, now())
    }

    /// The same at a moment, in seconds since 1970.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_at(&self, authorization: Option<&HeaderValue>, needed: Role, now: i64) -> Result<Principal, Denied> {
        self.check_tokens(bearer(authorization).as_slice(), needed, now)
    }

    /// Who the caller is that shows these tokens: the first one that is accepted counts.
    ///
    /// # Errors
    /// Why none is: what is wrong with the first, unless one has a key that may be a new one.
    pub fn check_tokens(&self, tokens: &[&[u8]], needed: Role, now: i64) -> Result<Principal, Denied> {
        self.check_shown(tokens, &[], needed, now)
    }

    /// Who the caller is that shows these tokens, or, where it shows none, whose certificate has one of these names. A
    /// certificate that is not known is like none.
    ///
    /// # Errors
    /// As [`check_tokens`](Self::check_tokens).
    pub fn check_shown(
        &self,
        tokens: &[&[u8]],
        certificate: &[String],
        needed: Role,
        now: i64,
    ) -> Result<Principal, Denied> {
        if tokens.is_empty() {
            return self.check_certificate(certificate, needed, now);
        }
        let check: &dyn Fn(&[u8]) -> Result<Principal, Denied> = match self {
            Self::Open => return Ok(Principal::anyone()),
            Self::Closed => return Err(Denied::Closed),
            Self::Tokens(tokens) => &|token| tokens.holder(token, now),
            Self::Keyring(keyring) => &|token| keyring.check(token, now),
        };
        let mut fault = Denied::Missing;
        for token in tokens {
            match check(token) {
                Ok(principal) if principal.role.includes(needed) => return Ok(principal),
                Ok(principal) => return Err(Denied::Role(principal)),
                Err(denied) if fault == Denied::Missing || denied == Denied::Jwt(JwtFault::Key) => fault = denied,
                Err(_) => {}
            }
        }
        Err(fault)
    }

    fn check_certificate(&self, names: &[String], needed: Role, now: i64) -> Result<Principal, Denied> {
        let tokens = match self {
            Self::Open => return Ok(Principal::anyone()),
            Self::Closed => return Err(Denied::Closed),
            Self::Tokens(tokens) => tokens.clone(),
            Self::Keyring(keyring) => keyring.tokens(),
        };
        let mut holders = names.iter().map(|name| tokens.holder_of(&certificate_digest(name), now));
        match holders.find(|holder| *holder != Err(Denied::Unknown)).unwrap_or(Err(Denied::Missing))? {
            principal if principal.role.includes(needed) => Ok(principal),
            principal => Err(Denied::Role(principal)),
        }
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{file::TokenFile, principal::ANYONE, scopes::Scopes};

    const READ: &str = "0123456789abcdef-r";
    const SUBMIT: &str = "0123456789abcdef:s";
    const ADMIN: &str = "0123456789abcdef+a=";

    fn guard() -> Guard {
        Guard::Tokens(Tokens::parse(&format!("dash:read:{READ}, ci:submit:{SUBMIT},ops:admin:{ADMIN}").into()).unwrap())
    }

    fn check(guard: &Guard, header: Option<&str>, needed: Role) -> Result<String, Denied> {
        let header = header.map(|text| HeaderValue::from_str(text).unwrap());
        guard.check(header.as_ref(), needed).map(|principal| principal.name.to_string())
    }

    #[test]
    fn a_role_may_do_what_weaker_roles_may() {
        let guard = guard();
        let table = [(READ, Role::Read, "dash"), (SUBMIT, Role::Submit, "ci"), (ADMIN, Role::Admin, "ops")];
        for (token, role, name) in table {
            for needed in Role::ALL {
                let principal = Principal { name: name.into(), role, scopes: Scopes::ALL };
                let want = if role.includes(needed) { Ok(name.to_owned()) } else { Err(Denied::Role(principal)) };
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
        assert_eq!(check(&guard, Some(&format!("bearer  {ADMIN} ")), Role::Admin).unwrap(), "ops");
    }

    #[test]
    fn of_several_tokens_the_first_that_is_accepted_counts() {
        let check = |tokens: &[&str], needed| {
            let tokens: Vec<&[u8]> = tokens.iter().map(|token| token.as_bytes()).collect();
            guard().check_tokens(&tokens, needed, 0).map(|principal| principal.name.to_string())
        };
        assert_eq!(check(&["wrong", READ, ADMIN], Role::Read).unwrap(), "dash");
        assert!(matches!(check(&[READ, ADMIN], Role::Admin), Err(Denied::Role(_))));
        assert_eq!(
            (check(&["wrong", ""], Role::Read), check(&[], Role::Read)),
            (Err(Denied::Unknown), Err(Denied::Missing))
        );
    }

    #[test]
    fn a_certificate_counts_where_no_token_is_shown() {
        let file = "ci submitter cert:ci.fleet.example expires=1970-01-01T00:16:40Z scope=queue:a";
        let file = TokenFile::parse(&format!("{file}\nops admin cert:spiffe://fleet/ops")).unwrap();
        let keyring = Keyring::new(Tokens::parse(&format!("dash:read:{READ}").into()).unwrap(), Vec::new());
        keyring.replace(&file).unwrap();
        let check = |tokens: &[&[u8]], names: &[&str], now| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let checked = Guard::Keyring(keyring.clone()).check_shown(tokens, &names, Role::Submit, now);
            checked.map(|principal| (principal.name.to_string(), principal.scopes.to_string()))
        };
        let named = |name: &str, scopes: &str| Ok((name.to_owned(), scopes.to_owned()));
        assert_eq!(check(&[], &["ci.fleet.example"], 999), named("ci", "queue:a"));
        assert_eq!(check(&[], &["other", "spiffe://fleet/ops"], 0).unwrap().0, "ops");
        assert_eq!(check(&[], &["ci.fleet.example"], 1_000), Err(Denied::Expired("ci".into())));
        for unknown in [&[][..], &["ci"], &["CI.fleet.example"], &["ci.fleet.example.evil"]] {
            assert_eq!(check(&[], unknown, 0), Err(Denied::Missing), "{unknown:?}");
        }
        // What is shown on purpose counts, and so does what is wrong with it.
        assert_eq!(check(&[b"wrong"], &["spiffe://fleet/ops"], 0), Err(Denied::Unknown));
        assert!(matches!(check(&[READ.as_bytes()], &["spiffe://fleet/ops"], 0), Err(Denied::Role(_))));
        assert_eq!(check(&[b"certificate\0spiffe://fleet/ops"], &[], 0).unwrap().0, "ops", "no header can have a 0");
    }

    #[test]
    fn an_open_guard_admits_all_and_a_closed_one_none() {
        let token = format!("Bearer {ADMIN}");
        for header in [None, Some("Basic x"), Some(&*token)] {
            assert_eq!(check(&Guard::Open, header, Role::Admin).unwrap(), ANYONE, "{header:?}");
            assert_eq!(check(&Guard::Closed, header, Role::Read), Err(Denied::Closed), "{header:?}");
        }
        assert!(Guard::Open.is_open() && !Guard::Closed.is_open() && !guard().is_open());
    }
}

//! Who was admitted, or why the caller was not.

use crate::{role::Role, scopes::Scopes};
use std::sync::Arc;

/// The name of callers where no token is asked for.
pub(crate) const ANYONE: &str = "anyone";

/// A caller that was admitted. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name of its token or certificate.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// With what it may do that.
    pub scopes: Scopes,
}

impl Principal {
    /// A caller of whom nothing is known, where nothing is asked.
    pub fn anyone() -> Self {
        Self { name: ANYONE.into(), role: Role::Admin, scopes: Scopes::ALL }
    }
}

/// Why a caller is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The surface is closed.
    Closed,
    /// The request has no bearer token.
    Missing,
    /// The token is not known.
    Unknown,
    /// A proxy's headers do not agree about the client's certificate.
    Certificate,
    /// The token or certificate of this name is past its end.
    Expired(Arc<str>),
    /// A JSON Web Token is not accepted.
    Jwt(JwtFault),
    /// The token's role does not include what is needed.
    Role(Principal),
}

/// What is wrong with a JSON Web Token, besides its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtFault {
    /// It cannot be read, or lacks what every token has.
    Malformed,
    /// Its algorithm is not accepted, or not for its key.
    Algorithm,
    /// Its issuer is not among those of the settings.
    Issuer,
    /// Its key is not known. It may be a new one.
    Key,
    /// Its signature is not one of its key.
    Signature,
    /// It is for somebody else.
    Audience,
    /// It begins later.
    NotYet,
    /// It, or its subject, is denied by the file of tokens.
    Revoked,
    /// Its claims have no role here.
    NoRole,
    /// Its claims have no scopes, where they are asked for.
    NoScopes,
}

impl JwtFault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Algorithm,
        Self::Issuer,
        Self::Key,
        Self::Signature,
        Self::Audience,
        Self::NotYet,
        Self::Revoked,
        Self::NoRole,
        Self::NoScopes,
    ];

    /// The reason in a word, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "jwt_malformed",
            Self::Algorithm => "jwt_algorithm",
            Self::Issuer => "jwt_issuer",
            Self::Key => "jwt_key",
            Self::Signature => "jwt_signature",
            Self::Audience => "jwt_audience",
            Self::NotYet => "jwt_not_yet",
            Self::Revoked => "jwt_revoked",
            Self::NoRole => "jwt_no_role",
            Self::NoScopes => "jwt_no_scopes",
        }
    }

    /// For the caller: what is wrong, without a full stop.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Malformed => "the token is not a JSON Web Token that can be read",
            Self::Algorithm => "the token's algorithm is not accepted",
            Self::Issuer => "the token's issuer is not one that is accepted (ACCESS_ISSUERS)",
            Self::Key => "the token's key is not known to its issuer",
            Self::Signature => "the token's signature does not match",
            Self::Audience => "the token is for another audience (ACCESS_AUDIENCE)",
            Self::NotYet => "the token is not valid yet (ACCESS_CLOCK_SKEW)",
            Self::Revoked => "the token is revoked",
            Self::NoRole => "the token's claims give no role here (ACCESS_ROLES)",
            Self::NoScopes => "the token's claims give no scopes here (ACCESS_SCOPE_CLAIM)",
        }
    }

    /// Whether it is who it says, and may do nothing.
    pub const fn is_without_rights(self) -> bool {
        matches!(self, Self::NoRole | Self::NoScopes)
    }
}

impl Denied {
    /// The reason in a word, for logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Certificate => "certificate",
            Self::Expired(_) => "expired",
            Self::Jwt(fault) => fault.as_str(),
            Self::Role(_) => "role",
        }
    }

    /// Whether the caller showed something that is not, or not any more, a credential.
    pub const fn is_failed_login(&self) -> bool {
        match self {
            Self::Unknown | Self::Certificate | Self::Expired(_) => true,
            Self::Jwt(fault) => !fault.is_without_rights(),
            Self::Closed | Self::Missing | Self::Role(_) => false,
        }
    }
}

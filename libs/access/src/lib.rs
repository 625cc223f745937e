//! Who is it, and what may they do: one answer for every HTTP and gRPC surface.
//!
//! A [`Guard`] belongs to a surface and is made of its settings: it is open, closed, or asks for a bearer token of those
//! that the settings or a [`TokenFile`] have, each with a name, a [`Role`], an end and [`Scopes`], for a JSON Web Token
//! of an [`Issuer`], or for a client's certificate whose name the file has. A caller is admitted as a [`Principal`] or refused with the reason ([`Denied`]); the words of the refusal are the surface's. Keeps SHA-256
//! digests only, and never shows or logs a token. Does no I/O and knows no route and no cookie.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bearer;
mod certificate;
mod file;
pub mod forwarded;
mod guard;
mod jwt;
mod keyring;
mod principal;
mod role;
mod scopes;
mod tokens;

pub use bearer::bearer;
pub use certificate::{
    CERTIFICATE_NAME_BYTES_MAX, Disagreement, VERIFIED, VERIFY_HEADERS, is_certificate_name, is_of_foreign_page,
    reported,
};
pub use file::{FILE_BYTES_MAX, FILE_TOKENS_MAX, FileError, TokenFile};
pub use guard::{Guard, now};
pub use jwt::{
    Denials, JWT_BYTES_MAX,
    issuer::{CONSOLE_ISSUER, Issuer},
    keys::KeySet,
};
pub use keyring::Keyring;
pub use principal::{Denied, JwtFault, Principal};
pub use role::Role;
pub use scopes::{Kind, SCOPES_MAX, Scopes};
pub use tokens::{
    TOKEN_CHARS_MAX, TOKEN_CHARS_MIN, TOKENS_MAX, Token, TokenDigest, Tokens, TokensError, check_secret, digest,
    is_name,
};

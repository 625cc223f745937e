//! Who is it, and what may they do: one answer for every HTTP and gRPC surface.
//!
//! A [`Guard`] belongs to a surface and is made of its settings: it is open, closed, or asks for one of a few bearer
//! [`Tokens`], each with a name and a [`Role`]. A caller is admitted as a [`Principal`] or refused with the reason
//! ([`Denied`]); the words of the refusal are the surface's. Keeps SHA-256 digests only, compares every one of them in
//! constant time, and never shows or logs a token. Does no I/O and knows no route, header of a proxy or cookie.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bearer;
mod guard;
mod role;
mod tokens;

pub use bearer::bearer;
pub use guard::{Denied, Guard, Principal};
pub use role::Role;
pub use tokens::{TOKEN_CHARS_MAX, TOKEN_CHARS_MIN, TOKENS_MAX, Tokens, TokensError};

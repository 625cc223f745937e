//! JSON Web Tokens of configured issuers. Pure: keys and the time are given.
//!
//! Verified with ring, which does TLS here already: a JWT library would leave the signature to us all the same (none
//! works with ring), and bring a process-wide provider. What is accepted is little: three parts, an asymmetric algorithm
//! of the list that fits the key, no critical extensions, an end.

pub(crate) mod issuer;
pub(crate) mod keys;

use crate::{
    principal::{Denied, JwtFault, Principal},
    tokens::TokenDigest,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use issuer::{Issuer, text};
use keys::{Algorithm, KeySet};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

/// Longest token, bytes.
pub const JWT_BYTES_MAX: usize = 16 << 10;
/// Verified tokens that are remembered. About 5 MiB.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// A token that holds until its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) principal: Principal,
    /// The first second, since 1970, in which it does not.
    pub(crate) ends: i64,
}

/// Tokens and callers that are refused before their end. Of the file of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denials {
    /// Tokens, by `jti`.
    pub tokens: HashSet<String>,
    /// Callers, by `sub`, with every token that they have.
    pub subjects: HashSet<String>,
}

impl Denials {
    fn has(&self, claims: &Map<String, Value>) -> bool {
        let is_in = |set: &HashSet<String>, claim: &str| text(claims, claim).is_some_and(|value| set.contains(value));
        is_in(&self.tokens, "jti") || is_in(&self.subjects, "sub")
    }
}

/// Whether a bearer token has the form of a JWT.
pub(crate) fn is_jwt(token: &[u8]) -> bool {
    token.starts_with(b"ey") && token.iter().filter(|b| **b == b'.').count() == 2
}

/// Who has this token.
///
/// # Errors
/// What is wrong with it. [`JwtFault::Key`]: the issuer may have a new key.
pub(crate) fn verify(
    token: &[u8],
    issuers: &[(Issuer, KeySet)],
    denials: &Denials,
    now: i64,
) -> Result<Verified, Denied> {
    let fault = Denied::Jwt;
    let malformed = fault(JwtFault::Malformed);
    if token.len() > JWT_BYTES_MAX {
        return Err(malformed);
    }
    let text_of = std::str::from_utf8(token).map_err(|_| malformed.clone())?;
    let (signed, signature) = text_of.rsplit_once('.').ok_or(malformed.clone())?;
    let (header, claims) = signed.split_once('.').ok_or(malformed.clone())?;
    let header: Header = decode(header).ok_or(malformed.clone())?;
    let claims: Map<String, Value> = decode(claims).ok_or(malformed.clone())?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed.clone())?;
    if header.crit.is_some() {
        return Err(malformed);
    }
    let algorithm = Algorithm::from_word(&header.alg).ok_or(fault(JwtFault::Algorithm))?;
    // Before the signature it is a claim only, and chooses the keys that it has to hold against.
    let by = text(&claims, "iss").ok_or(malformed)?;
    let (issuer, keys) = issuers.iter().find(|(issuer, _)| issuer.url == by).ok_or(fault(JwtFault::Issuer))?;
    keys.verify(header.kid.as_deref(), algorithm, signed.as_bytes(), &signature).map_err(fault)?;
    let ends = issuer.check(&claims, now)?;
    if denials.has(&claims) {
        return Err(fault(JwtFault::Revoked));
    }
    Ok(Verified { principal: issuer.principal(&claims).map_err(fault)?, ends })
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Tokens that were verified, so that a signature is checked once and not at every request.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<HashMap<TokenDigest, (u64, Verified)>>);

impl Remembered {
    /// What is known of a token, if nothing that it was judged by has changed since.
    pub(crate) fn get(&self, digest: &TokenDigest, generation: u64, now: i64) -> Option<Principal> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, verified) = entries.get(digest)?;
        (*of == generation && now < verified.ends).then(|| verified.principal.clone())
    }

    pub(crate) fn put(&self, digest: TokenDigest, generation: u64, verified: Verified, now: i64) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= REMEMBERED_MAX {
            entries.retain(|_, (of, verified)| *of == generation && now < verified.ends);
        }
        if entries.len() >= REMEMBERED_MAX {
            entries.clear();
        }
        entries.insert(digest, (generation, verified));
    }
}

#[cfg(test)]
mod tests;

//! What a request shows of who makes it.

use agentforge_access::bearer;
use http::{HeaderMap, header};
use std::net::IpAddr;

/// Tokens of one request that are tried; further ones are not looked at.
const TOKENS_MAX: usize = 4;

/// The peer, the headers and the credentials of a request.
#[derive(Clone, Debug)]
pub struct Shown<'r> {
    pub(crate) peer: Option<IpAddr>,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) tokens: Vec<&'r [u8]>,
    pub(crate) certificate: &'r [String],
}

impl<'r> Shown<'r> {
    /// A request whose token, if it has one, is in the header `Authorization`.
    pub fn new(peer: Option<IpAddr>, headers: &'r HeaderMap) -> Self {
        let tokens = bearer(headers.get(header::AUTHORIZATION)).into_iter().collect();
        Self { peer, headers, tokens, certificate: &[] }
    }

    /// The same with tokens from elsewhere in the request, which are tried after it.
    #[must_use]
    pub fn with_tokens(mut self, tokens: impl Iterator<Item = &'r [u8]>) -> Self {
        let room = TOKENS_MAX.saturating_sub(self.tokens.len());
        self.tokens.extend(tokens.take(room));
        self
    }

    /// The same with the names of the certificate that the connection's own TLS has verified.
    #[must_use]
    pub fn with_certificate(mut self, names: &'r [String]) -> Self {
        self.certificate = names;
        self
    }
}

//! The HTTP client that keeps the policy, and the resolver inside it.
//!
//! Relies on `Policy` for every decision. The wrapped client is not handed out: a request can only be made through
//! [`Client::request`], which checks the URL, because a resolver is never asked about an address in the URL.

use crate::policy::{Policy, Refusal};
use crate::resolve::{ResolveError, SystemResolver, allowed_addresses};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{error::Error as StdError, net::SocketAddr, sync::Arc, time::Duration};
use url::Url;

/// A connection that was idle for this long is closed: before most servers close it, which would break a request just
/// being sent.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For name, connection and TLS.
    pub connect: Duration,
    /// For the whole request, its body's reading included; a request may set its own.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(30) }
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS or the like could not be set up.
    #[error("making the HTTP client")]
    Build(#[source] reqwest::Error),
}

/// An HTTP client that calls nothing which the policy forbids. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    inner: reqwest::Client,
    policy: Arc<Policy>,
}

impl Client {
    /// Begins a request, if the URL may be called.
    ///
    /// # Errors
    /// [`Refusal`]; an address found later, by resolving the name, comes out of `send()` and is
    /// recognised by [`refusal`].
    pub fn request(&self, method: reqwest::Method, url: Url) -> Result<reqwest::RequestBuilder, Refusal> {
        self.policy.check_url(&url)?;
        Ok(self.inner.request(method, url))
    }

    /// The rules that this client keeps.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// Makes a client that keeps the policy: own resolver, no proxy, no redirects, TLS by rustls with ring.
/// On a machine without CA certificates https calls fail, each with its reason; the rest works.
///
/// # Errors
/// [`Error::Build`] when TLS cannot be set up.
pub fn client(policy: &Policy, timeouts: Timeouts) -> Result<Client, Error> {
    // Once per process; an earlier call has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = Arc::new(policy.clone());
    let builder = || {
        reqwest::Client::builder()
            .dns_resolver(GuardedResolver { policy: policy.clone() })
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.total)
            .pool_max_idle_per_host(8)
            .pool_idle_timeout(IDLE_MAX)
            .user_agent(concat!("agentforge/", env!("CARGO_PKG_VERSION")))
    };
    // With no CA bundle the first build fails; an empty set of roots trusts no certificate.
    let inner = builder().build().or_else(|_| builder().tls_certs_only([]).build()).map_err(Error::Build)?;
    Ok(Client { inner, policy })
}

/// The policy's refusal inside an error of `send()`, if that is what it was.
pub fn refusal(error: &reqwest::Error) -> Option<&Refusal> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(refusal) = e.downcast_ref::<Refusal>() {
            return Some(refusal);
        }
        if let Some(ResolveError::Refused(refusal)) = e.downcast_ref::<ResolveError>() {
            return Some(refusal);
        }
        cause = e.source();
    }
    None
}

/// Resolves with the system's resolver and lets through only the addresses that may be called.
struct GuardedResolver {
    policy: Arc<Policy>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy.clone();
        Box::pin(async move {
            let allowed = allowed_addresses(&policy, &SystemResolver, name.as_str()).await?;
            Ok(Box::new(allowed.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn policy(entries: &[&str]) -> Policy {
        Policy::from_entries(entries.iter().copied()).0
    }

    /// A server that answers every connection with the same bytes.
    async fn server(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                let _ = socket.read(&mut buffer).await;
                let _ = socket.write_all(answer).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_name_that_resolves_inside_is_refused_and_recognised() {
        let port = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi").await;
        let client = client(&policy(&[]), Timeouts::default()).unwrap();
        let url = Url::parse(&format!("https://localhost:{port}/")).unwrap();
        let error = client.request(reqwest::Method::GET, url).unwrap().send().await.unwrap_err();
        assert!(matches!(refusal(&error), Some(Refusal::Address { kind: crate::Kind::Loopback, .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_named_host_is_open_and_its_redirect_is_not_followed() {
        let answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/secret\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let port = server(answer).await;
        let client = client(&policy(&["localhost"]), Timeouts::default()).unwrap();
        let url = Url::parse(&format!("http://localhost:{port}/")).unwrap();
        let response = client.request(reqwest::Method::GET, url).unwrap().send().await.unwrap();
        assert_eq!(response.status(), 302);
    }

    #[tokio::test]
    async fn an_address_in_the_url_is_refused_without_a_connection() {
        let client = client(&policy(&[]), Timeouts::default()).unwrap();
        for url in ["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/", "http://example.org/"] {
            assert!(client.request(reqwest::Method::GET, Url::parse(url).unwrap()).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_cap() {
        let port = server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n0123456789").await;
        let client = client(&policy(&["127.0.0.1"]), Timeouts::default()).unwrap();
        for (cap, expected, truncated) in [(4, "0123", true), (10, "0123456789", false), (99, "0123456789", false)] {
            let url = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
            let response = client.request(reqwest::Method::GET, url).unwrap().send().await.unwrap();
            let body = crate::read_body_capped(response, cap).await.unwrap();
            assert_eq!((&*body.bytes, body.truncated), (expected.as_bytes(), truncated), "cap {cap}");
        }
    }
}

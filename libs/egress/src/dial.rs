//! From a URL to an open connection that keeps the policy.
//!
//! Relies on [`Policy`] for every decision and on [`Resolve`] for names. Connects to the addresses that were
//! checked and to nothing else: no proxy, no redirect, no second lookup. TLS is rustls with ring, HTTP/1.1 only.

use crate::{
    connection::Connection,
    policy::{Policy, Refusal},
    resolve::{Resolve, ResolveError, SystemResolver, allowed_addresses},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// One address is tried so long before the next one is.
const ONE_ADDRESS: Duration = Duration::from_secs(5);

/// Where requests go. Parsed once; `Debug` shows neither path nor credentials, for both hold secrets.
#[derive(Clone)]
pub struct Target {
    host: Host<String>,
    port: u16,
    is_tls: bool,
    host_header: HeaderValue,
    authorization: Option<HeaderValue>,
    path: http::Uri,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("host", &self.host.to_string()).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why a URL cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The rules forbid it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be asked for over HTTP. The text does not repeat it.
    #[error("the URL cannot be used for HTTP requests")]
    Unusable,
}

impl Target {
    /// Takes a URL apart. Says nothing about whether it may be called: [`Dialer::connect`] does.
    ///
    /// # Errors
    /// [`TargetError::Unusable`] for one without host or with characters that no request can carry.
    pub fn new(url: &Url) -> Result<Self, TargetError> {
        let unusable = |_| TargetError::Unusable;
        let host = url.host().ok_or(Refusal::NoHost)?.to_owned();
        let port = url.port_or_known_default().ok_or(TargetError::Unusable)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let has_login = !url.username().is_empty() || url.password().is_some();
        let login = || format!("{}:{}", unescaped(url.username()), unescaped(url.password().unwrap_or_default()));
        let authorization = if has_login {
            Some(
                HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(login())))
                    .map_err(|_| TargetError::Unusable)?,
            )
        } else {
            None
        };
        Ok(Self {
            host,
            port,
            is_tls: url.scheme() == "https",
            host_header: HeaderValue::from_str(&authority).map_err(|_| TargetError::Unusable)?,
            authorization: authorization.map(|mut value| {
                value.set_sensitive(true);
                value
            }),
            path: path.parse().map_err(|_: http::uri::InvalidUri| ()).map_err(unusable)?,
        })
    }

    /// The value of `Host`.
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }
    /// The value of `Authorization`, for a URL with user name and password.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
    /// Path and query, as the request line has them.
    pub fn path(&self) -> &http::Uri {
        &self.path
    }
}

/// User name and password are percent-encoded in a URL.
fn unescaped(text: &str) -> std::borrow::Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

/// Why there is no dialer.
#[derive(Debug, thiserror::Error)]
pub enum DialerError {
    /// The file of authorities cannot be used.
    #[error("read certificates from {}", path.display())]
    Authorities {
        /// The file, as the setting names it.
        path: PathBuf,
        /// Why it could not be read as PEM.
        source: rustls::pki_types::pem::Error,
    },
    /// It contains something other than a certificate.
    #[error("use certificates from {}", path.display())]
    Unfit {
        /// The file, as the setting names it.
        path: PathBuf,
        /// Why its certificates are not accepted as authorities.
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

/// Why there is no connection. Names the host at most, never the rest of the URL.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The rules forbid it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The name could not be resolved.
    #[error("the name does not resolve")]
    Resolve(#[source] io::Error),
    /// No address took the connection.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// TLS failed: certificate, name or protocol.
    #[error("no TLS")]
    Tls(#[source] io::Error),
    /// It speaks no HTTP.
    #[error("no HTTP")]
    Handshake(#[source] hyper::Error),
}

impl DialError {
    /// A stable short name, for labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "egress_refused",
            Self::Resolve(_) => "dns",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Handshake(_) => "protocol",
        }
    }
}

/// Opens connections that keep the policy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    policy: Arc<Policy>,
    resolver: Arc<dyn Resolve>,
    tls: Arc<ClientConfig>,
}

impl Dialer {
    /// Trusts the system's authorities and those of `authorities`, a PEM file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn new(policy: Policy, authorities: Option<&Path>) -> Result<Self, DialerError> {
        let mut roots = RootCertStore::empty();
        // What the system has and cannot be read is not trusted; calls then fail with their reason.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = authorities {
            let unreadable = |source| DialerError::Authorities { path: path.to_owned(), source };
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                let certificate = certificate.map_err(unreadable)?;
                roots.add(certificate).map_err(|source| DialerError::Unfit { path: path.to_owned(), source })?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut tls = tls.map_err(DialerError::Tls)?.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { policy: Arc::new(policy), resolver: Arc::new(SystemResolver), tls: Arc::new(tls) })
    }

    /// The same, asking another resolver.
    #[must_use]
    pub fn with_resolver(self, resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, ..self }
    }

    /// The rules that it keeps.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Opens a connection. The caller bounds the time; a dropped future leaves nothing behind.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn connect(&self, target: &Target) -> Result<Connection, DialError> {
        let addresses = self.addresses(target).await?;
        let stream = first_that_answers(&addresses, target.port).await.map_err(DialError::Connect)?;
        // Small requests go out at once; without it the rest only takes longer.
        let _ = stream.set_nodelay(true);
        if !target.is_tls {
            return Connection::open(stream).await.map_err(DialError::Handshake);
        }
        let name = match &target.host {
            Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|e| DialError::Tls(io::Error::other(e)))?,
            Host::Ipv4(ip) => ServerName::IpAddress(IpAddr::V4(*ip).into()),
            Host::Ipv6(ip) => ServerName::IpAddress(IpAddr::V6(*ip).into()),
        };
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(DialError::Tls)?;
        Connection::open(stream).await.map_err(DialError::Handshake)
    }

    /// What may be connected to.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, DialError> {
        self.policy.check(&target.host, target.is_tls)?;
        match &target.host {
            Host::Ipv4(ip) => Ok(vec![(*ip).into()]),
            Host::Ipv6(ip) => Ok(vec![(*ip).into()]),
            Host::Domain(name) => match allowed_addresses(&self.policy, &*self.resolver, name).await {
                Ok(addresses) => Ok(addresses),
                Err(ResolveError::Refused(refusal)) => Err(refusal.into()),
                Err(ResolveError::Failed { source, .. }) => Err(DialError::Resolve(source)),
            },
        }
    }
}

async fn first_that_answers(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for ip in addresses {
        match timeout(ONE_ADDRESS, TcpStream::connect(SocketAddr::new(*ip, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, resolve::Resolving};
    use std::sync::Mutex;
    use tokio::net::TcpListener;

    fn dialer(entries: &[&str]) -> Dialer {
        Dialer::new(Policy::from_entries(entries.iter().copied()).0, None).unwrap()
    }

    fn target(url: &str) -> Target {
        Target::new(&Url::parse(url).unwrap()).unwrap()
    }

    /// Gives another answer each time, as a name does whose owner means harm; remembers how often it was asked.
    #[derive(Debug)]
    struct Changing(Mutex<Vec<&'static [&'static str]>>);

    impl Resolve for Changing {
        fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
            let answer = self.0.lock().unwrap().pop().unwrap_or(&[]);
            Box::pin(async move { Ok(answer.iter().map(|a| a.parse().unwrap()).collect()) })
        }
    }

    #[test]
    fn a_target_has_what_a_request_needs_and_shows_no_secret() {
        let t = target("https://us%40er:p%3Ass@hooks.example:8443/T00/secret?token=abc#part");
        assert_eq!((t.port, t.is_tls, t.host_header().to_str().unwrap()), (8443, true, "hooks.example:8443"));
        assert_eq!(t.path().to_string(), "/T00/secret?token=abc");
        let expected = format!("Basic {}", STANDARD.encode("us@er:p:ss"));
        assert_eq!(t.authorization().unwrap(), &*expected);
        let shown = format!("{t:?}");
        assert!(!shown.contains("secret") && !shown.contains("abc") && !shown.contains("user"), "{shown}");
        let t = target("http://[::1]");
        assert_eq!((t.port, t.host_header().to_str().unwrap(), t.path().path()), (80, "[::1]", "/"));
    }

    #[tokio::test]
    async fn every_kind_of_inner_address_is_refused_by_what_the_name_resolves_to() {
        let cases: [(&[&str], Kind); 9] = [
            (&["127.0.0.1"], Kind::Loopback),
            (&["10.2.3.4"], Kind::Private),
            (&["fd12::1"], Kind::Private),
            (&["fe80::1"], Kind::LinkLocal),
            (&["169.254.169.254"], Kind::Metadata),
            (&["::ffff:192.168.1.1"], Kind::Private),
            (&["64:ff9b::7f00:1"], Kind::Loopback),
            (&["2002:a00:1::"], Kind::Private),
            (&["0.0.0.0", "127.0.0.1"], Kind::Unspecified),
        ];
        for (answer, expected) in cases {
            let resolver = Arc::new(Changing(Mutex::new(vec![answer])));
            let dialer = dialer(&[]).with_resolver(resolver);
            let error = dialer.connect(&target("https://a.example/")).await.err().unwrap();
            let is = matches!(&error, DialError::Refused(Refusal::Address { kind, .. }) if *kind == expected);
            assert!(is, "{answer:?}: {error:?}");
            assert_eq!(error.code(), "egress_refused");
            assert!(error.to_string().contains("a.example"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_that_changes_after_the_check_is_not_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // First an address that may be called and does not answer, then one inside that would.
        let answers = Arc::new(Changing(Mutex::new(vec![&["127.0.0.1"], &["127.0.0.2"]])));
        let dialer = dialer(&["127.0.0.2", "a.test"]).with_resolver(answers.clone());
        let error = dialer.connect(&target(&format!("http://a.test:{port}/"))).await.err().unwrap();
        assert!(matches!(error, DialError::Connect(_)), "{error:?}");
        assert_eq!(answers.0.lock().unwrap().len(), 1, "one lookup, one connection");
        let inside = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(inside.is_err(), "the address that was not checked was called");
    }

    #[tokio::test]
    async fn addresses_in_the_url_and_plain_http_are_judged_too() {
        let dialer = dialer(&[]);
        for url in ["https://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "https://2130706433/", "http://example.org/"] {
            let error = dialer.connect(&target(url)).await.err().unwrap();
            assert!(matches!(error, DialError::Refused(_)), "{url}: {error:?}");
        }
    }
}

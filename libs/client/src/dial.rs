//! Connections to the HTTP ports of services: with TLS for `https://`, and whose certificates are trusted then.
//!
//! A process trusts the authorities of one file, or those of the system. Nothing is sent before the certificate has been
//! checked.

use rustls_native_certs::load_native_certs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The file that [`trust`] named.
static AUTHORITIES: OnceLock<PathBuf> = OnceLock::new();

/// A file of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the authorities in {path}")]
pub struct Untrusted {
    /// The file.
    path: PathBuf,
    /// What is wrong with it.
    source: pem::Error,
}

/// Has this process trust the authorities in a PEM file, and no others, for servers of `https://` URLs. The first call
/// counts.
///
/// # Errors
/// A file that cannot be read, or has no certificate.
pub fn trust(path: &Path) -> Result<(), Untrusted> {
    read(path).map_err(|source| Untrusted { path: path.to_owned(), source })?;
    let _ = AUTHORITIES.set(path.to_owned());
    Ok(())
}

/// The authorities of [`trust`] as PEM; `None` trusts those of the system.
pub(crate) fn authorities() -> Option<Vec<u8>> {
    // Read when it was named; a file that has gone since trusts no one.
    AUTHORITIES.get().map(|path| std::fs::read(path).unwrap_or_default())
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let read: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if read.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(read) }
}

/// A connection, with TLS or without.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects to the server of an `http://` or `https://` URL. Also gives what its Host header is.
pub(crate) async fn dial(url: &str) -> io::Result<(Box<dyn Stream>, String)> {
    let (is_tls, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://").unwrap_or(url)),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, has_port) = host_of(authority);
    let default = if is_tls { 443 } else { 80 };
    let address = if has_port { authority.to_owned() } else { format!("{authority}:{default}") };
    let stream = TcpStream::connect(&address).await?;
    if !is_tls {
        return Ok((Box::new(stream), authority.to_owned()));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config()?).connect(name, stream).await?;
    Ok((Box::new(stream), authority.to_owned()))
}

/// The host of `host`, `host:port`, `[address]` or `[address]:port`, and whether there is a port.
fn host_of(authority: &str) -> (&str, bool) {
    if let Some((address, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (address, rest.starts_with(':'));
    }
    match authority.rsplit_once(':') {
        Some((host, _)) => (host, true),
        None => (authority, false),
    }
}

fn config() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match AUTHORITIES.get() {
        Some(path) => roots.add_parsable_certificates(read(path).map_err(io::Error::other)?),
        None => roots.add_parsable_certificates(load_native_certs().certs),
    };
    let builder = ClientConfig::builder_with_provider(default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port() {
        for (authority, host, has_port) in [
            ("a.example", "a.example", false),
            ("a.example:8080", "a.example", true),
            ("127.0.0.1:1", "127.0.0.1", true),
            ("[::1]", "::1", false),
            ("[::1]:8080", "::1", true),
        ] {
            assert_eq!(host_of(authority), (host, has_port), "{authority}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let error = trust(Path::new("/nowhere/ca.pem")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }
}

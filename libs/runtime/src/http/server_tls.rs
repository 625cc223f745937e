//! The server's side of TLS from files. They are read at the start; renewed ones need a restart.

use crate::Error;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file and the setting that named it.
pub type Named = (PathBuf, &'static str);

/// What a listener's TLS is made of.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Certificate chain, PEM.
    pub cert: Named,
    /// Its key, PEM.
    pub key: Named,
    /// What is asked of clients.
    pub clients: ClientCertificates,
    /// Protocols of ALPN, best first.
    pub protocols: &'static [&'static [u8]],
}

/// What a listener asks of its clients.
#[derive(Clone, Debug)]
pub enum ClientCertificates {
    /// Nothing.
    None,
    /// A certificate of these authorities, or no certificate: the service decides.
    Optional(Named),
    /// A certificate of these authorities, or no connection.
    Required(Named),
}

/// The configuration for TLS 1.2 and 1.3.
///
/// # Errors
/// [`Error::Pem`] for a file, [`Error::Tls`] for what is in them.
pub fn server_config(tls: &ServerTls) -> Result<Arc<ServerConfig>, Error> {
    let chain = certificates(&tls.cert)?;
    let (path, setting) = &tls.key;
    let key =
        PrivateKeyDer::from_pem_file(path).map_err(|source| Error::Pem { path: path.clone(), setting, source })?;
    let builder = ServerConfig::builder();
    let builder = match &tls.clients {
        ClientCertificates::None => builder.with_no_client_auth(),
        ClientCertificates::Optional(file) | ClientCertificates::Required(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| Error::Tls(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder(roots.into());
            let verifier = match tls.clients {
                ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| Error::Tls(e.into()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| Error::Tls(error.into()))?;
    config.alpn_protocols = tls.protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config.into())
}

fn certificates((path, setting): &Named) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path as &Path).and_then(Iterator::collect);
    read.map_err(|source| Error::Pem { path: path.clone(), setting, source })
}

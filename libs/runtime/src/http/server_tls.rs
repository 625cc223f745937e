//! The server's side of TLS from files. They are read at the start; renewed ones need a restart.

use crate::Error;
use agentforge_config::{Reader, Setting};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file and the setting that named it.
pub type Named = (PathBuf, &'static str);

/// What a listener's TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No certificate: clients are not asked for one.
    None,
    /// A certificate of these authorities, or no certificate: the service decides.
    Optional(Named),
    /// A certificate of these authorities, or no connection.
    Required(Named),
}

/// The settings that name the files of a listener's TLS.
#[derive(Clone, Copy, Debug)]
pub struct TlsSettings<'a> {
    /// The setting of the file with the listener's certificate and those between it and its authority.
    pub cert: &'a Setting,
    /// The setting of the file with the private key of the certificate.
    pub key: &'a Setting,
    /// Authorities of clients.
    pub client_ca: &'a Setting,
}

impl ServerTls {
    /// Reads the settings; `None` without a certificate. Halves are faults. With authorities, `clients` says
    /// what is asked of clients.
    pub fn read(
        reader: &mut Reader<'_>,
        settings: TlsSettings<'_>,
        clients: fn(Named) -> ClientCertificates,
        protocols: &'static [&'static [u8]],
    ) -> Option<Self> {
        let TlsSettings { cert, key, client_ca } = settings;
        let authorities: Option<PathBuf> = reader.opt(client_ca);
        match (reader.opt::<PathBuf>(cert), reader.opt::<PathBuf>(key)) {
            (Some(cert_file), Some(key_file)) => Some(Self {
                cert: (cert_file, cert.key),
                key: (key_file, key.key),
                clients: authorities.map_or(ClientCertificates::None, |path| clients((path, client_ca.key))),
                protocols,
            }),
            (None, None) => {
                if authorities.is_some() {
                    reader.fault(client_ca.key, format!("needs {} and {}", cert.key, key.key));
                }
                None
            }
            (Some(_), None) => {
                reader.fault(cert.key, format!("needs {}", key.key));
                None
            }
            (None, Some(_)) => {
                reader.fault(key.key, format!("needs {}", cert.key));
                None
            }
        }
    }
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

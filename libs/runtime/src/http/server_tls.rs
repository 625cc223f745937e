//! The server's side of TLS from files: which ones, and the configuration that their contents make.
//!
//! Decides nothing about time: `tls_files` reads the files and reads them again.

use crate::Error;
use agentforge_config::{Common, Reader, Setting, common};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::PathBuf;
use std::sync::Arc;
use x509_parser::parse_x509_certificate;

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

/// The protocols of a listener for HTTP.
pub const HTTP_PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The protocols of a listener for gRPC.
pub const GRPC_PROTOCOLS: &[&[u8]] = &[b"h2"];

impl ServerTls {
    /// TLS of a process's listeners, as TLS_CERT and the settings with it say; `None` without. Clients need a
    /// certificate where TLS_CLIENT_CA is set.
    pub fn of(common: &Common, protocols: &'static [&'static [u8]]) -> Option<Self> {
        let files = common.tls.clone()?;
        let client_ca = |path| ClientCertificates::Required((path, common::TLS_CLIENT_CA.key));
        Some(Self {
            cert: (files.cert, common::TLS_CERT.key),
            key: (files.key, common::TLS_KEY.key),
            clients: files.client_ca.map_or(ClientCertificates::None, client_ca),
            protocols,
        })
    }

    /// The same for a listener whose clients have no certificates, such as probes.
    pub fn without_client_certificates(self) -> Self {
        Self { clients: ClientCertificates::None, ..self }
    }

    fn authorities(&self) -> Option<&Named> {
        match &self.clients {
            ClientCertificates::None => None,
            ClientCertificates::Optional(file) | ClientCertificates::Required(file) => Some(file),
        }
    }

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

/// What the files held when they were read.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Contents {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Pem`] names the one that cannot be read.
    pub(super) fn read(tls: &ServerTls) -> Result<Self, Error> {
        let read = |file: &Named| std::fs::read(&file.0).map_err(|error| unreadable(file, pem::Error::Io(error)));
        let authorities = tls.authorities().map(read).transpose()?;
        Ok(Self { cert: read(&tls.cert)?, key: read(&tls.key)?, authorities })
    }

    /// When the certificate ends, in seconds since 1970.
    pub(super) fn expiry(&self) -> Option<i64> {
        let leaf = CertificateDer::pem_slice_iter(&self.cert).next()?.ok()?;
        parse_x509_certificate(&leaf).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
    }

    /// The configuration for TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// [`Error::Pem`] and [`Error::Tls`] name the file and the setting.
    pub(super) fn config(&self, tls: &ServerTls) -> Result<Arc<ServerConfig>, Error> {
        let chain = certificates(&tls.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| unreadable(&tls.key, source))?;
        let builder = ServerConfig::builder();
        let builder = match (tls.authorities(), &self.authorities) {
            (Some(file), Some(bytes)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file, bytes)? {
                    roots.add(certificate).map_err(|error| unfit(file, error))?;
                }
                let verifier = WebPkiClientVerifier::builder(roots.into());
                let verifier = match tls.clients {
                    ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| unfit(file, error))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| unfit(&tls.key, error))?;
        config.alpn_protocols = tls.protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config.into())
    }
}

fn certificates(file: &Named, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match read {
        Ok(none) if none.is_empty() => Err(unreadable(file, pem::Error::NoItemsFound)),
        read => read.map_err(|source| unreadable(file, source)),
    }
}

fn unreadable((path, setting): &Named, source: pem::Error) -> Error {
    Error::Pem { path: path.clone(), setting, source }
}

fn unfit((path, setting): &Named, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Tls { path: path.clone(), setting, source: Box::new(source) }
}

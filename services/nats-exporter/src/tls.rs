//! TLS of the page's port. Files are read at the start; renewed ones need a restart.

use crate::{
    config::{self, ListenTls},
    error::Error,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{path::Path, sync::Arc};

/// The server's side of TLS 1.2 and 1.3. With authorities, a client without a certificate of theirs gets
/// no connection.
///
/// # Errors
/// [`Error::Pem`] for a file, [`Error::Tls`] for what is in them.
pub fn server_config(tls: &ListenTls) -> Result<Arc<ServerConfig>, Error> {
    let chain = certificates(&tls.cert, config::TLS_CERT.key)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|source| Error::Pem {
        path: tls.key.clone(),
        setting: config::TLS_KEY.key,
        source,
    })?;
    let builder = ServerConfig::builder();
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, config::TLS_CLIENT_CA.key)? {
                roots.add(certificate).map_err(|error| Error::Tls(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder(roots.into()).build().map_err(|e| Error::Tls(e.into()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| Error::Tls(error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config.into())
}

fn certificates(path: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|source| Error::Pem {
        path: path.to_owned(),
        setting,
        source,
    })
}

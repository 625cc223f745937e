//! An authority with a server and clients, and a client of TLS that shows a certificate.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// For an answer, on a busy machine.
const ANSWER: Duration = Duration::from_secs(30);

/// An authority and the files of a server on 127.0.0.1: `ca.pem`, `server.pem` and `server.key`.
pub struct Pki {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// The certificate of a client and its key, PEM.
pub struct ClientPem {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Pki {
    /// Makes them.
    #[expect(clippy::new_without_default, reason = "it writes files")]
    pub fn new() -> Self {
        // For clients of other libraries in the test's process; a second one is refused, and the first is kept.
        let _ = default_provider().install_default();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { dir: tempfile::tempdir().unwrap(), ca };
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        fs::write(pki.file("server.pem"), server.signed_by(&key, &pki.ca).unwrap().pem()).unwrap();
        fs::write(pki.file("server.key"), key.serialize_pem()).unwrap();
        fs::write(pki.file("ca.pem"), pki.ca.pem()).unwrap();
        pki
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> String {
        self.file(name).to_string_lossy().into_owned()
    }

    /// The authority, PEM.
    pub fn ca(&self) -> String {
        self.ca.pem()
    }

    /// A client's certificate with these names: URIs where they have a scheme, else hosts.
    pub fn client(&self, names: &[&str]) -> ClientPem {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a client");
        let name = |name: &&str| {
            let text = (*name).to_owned();
            if name.contains("://") {
                SanType::URI(text.try_into().unwrap())
            } else {
                SanType::DnsName(text.try_into().unwrap())
            }
        };
        params.subject_alt_names = names.iter().map(name).collect();
        let key = KeyPair::generate().unwrap();
        ClientPem { cert: params.signed_by(&key, &self.ca).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Sends a request with this certificate: `what` is a method and a path. Status, and the body that has a length; none of
    /// one without an end.
    ///
    /// # Errors
    /// No connection, a handshake that is refused, or no answer within 30 s.
    pub async fn ask(
        &self,
        address: &str,
        client: Option<&ClientPem>,
        what: &str,
        headers: &[&str],
        body: &str,
    ) -> io::Result<(u16, String)> {
        let asked = self.exchange(address, client, what, headers, body);
        timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn exchange(
        &self,
        address: &str,
        client: Option<&ClientPem>,
        what: &str,
        headers: &[&str],
        body: &str,
    ) -> io::Result<(u16, String)> {
        let connector = TlsConnector::from(Arc::new(self.config(client)));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = connector.connect(name, TcpStream::connect(address).await?).await?;
        let mut request = format!("{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        if !body.is_empty() {
            request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).await?;
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                let length = length.map_or(0, |length| length.parse::<usize>().unwrap());
                if answer.len() >= end + 4 + length {
                    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                    let body = String::from_utf8_lossy(&answer[end + 4..]).into_owned();
                    return status.map(|status| (status, body)).ok_or_else(|| io::Error::other(head));
                }
            }
            match stream.read(&mut part).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => answer.extend_from_slice(&part[..n]),
            }
        }
    }

    fn config(&self, client: Option<&ClientPem>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        match client {
            None => builder.with_no_client_auth(),
            Some(ClientPem { cert, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        }
    }
}

//! TLS of a listener from files: renewed under load, with pairs that do not fit, and refused where it must be.

use agentforge_config::{Common, Reader};
use agentforge_runtime::http::{HTTP_PROTOCOLS, ServerTls};
use agentforge_runtime::{Runtime, Tls, bind, serve_https};
use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longer than two polls of the files.
const RENEWAL_MAX: Duration = Duration::from_secs(30);

/// An authority and a folder for what it signs, laid out as Kubernetes does: files are links into `..data`, which is a
/// link to a folder that is replaced as a whole.
struct Pki {
    dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    versions: usize,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut pki = Self { dir: tempfile::tempdir().unwrap(), ca, versions: 0 };
        std::fs::write(pki.path("ca.pem"), pki.ca.pem()).unwrap();
        let [cert, key] = pki.pair();
        pki.publish(&cert, &key);
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), pki.path(name)).unwrap();
        }
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pair(&self) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        [params.signed_by(&key, &self.ca).unwrap().pem(), key.serialize_pem()]
    }

    /// Swaps the folder that the names lead to.
    fn publish(&mut self, cert: &str, key: &str) {
        self.versions += 1;
        let version = format!("..{}", self.versions);
        std::fs::create_dir(self.path(&version)).unwrap();
        std::fs::write(self.path(&version).join("tls.crt"), cert).unwrap();
        std::fs::write(self.path(&version).join("tls.key"), key).unwrap();
        symlink(&version, self.path("..data_tmp")).unwrap();
        std::fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    fn common(&self, client_ca: bool) -> Common {
        let text = |name: &str| self.path(name).to_string_lossy().into_owned();
        let mut source =
            BTreeMap::from([("TLS_CERT".to_owned(), text("tls.crt")), ("TLS_KEY".to_owned(), text("tls.key"))]);
        if client_ca {
            source.insert("TLS_CLIENT_CA".to_owned(), text("ca.pem"));
        }
        let mut reader = Reader::new(&source);
        let common = Common::read(&mut reader);
        reader.finish().unwrap();
        common
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap()).unwrap();
        ClientConfig::builder().with_root_certificates(roots).with_no_client_auth().into()
    }

    fn client_with_certificate(&self) -> Arc<ClientConfig> {
        let [cert, key] = self.pair();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap().into()
    }
}

async fn serving(runtime: &Runtime, pki: &Pki, client_ca: bool) -> SocketAddr {
    let tls = Tls::of(runtime, &pki.common(client_ca), HTTP_PROTOCOLS).unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap(), "HTTP_PORT").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(serve_https(listener, tls, router, runtime.stopping(), runtime.grace()));
    address
}

async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, TcpStream::connect(address).await?).await
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let (mut answer, mut part) = (Vec::new(), [0; 512]);
    while !answer.ends_with(b"hello") {
        match stream.read(&mut part).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => answer.extend_from_slice(&part[..n]),
        }
    }
    Ok(())
}

fn leaf(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// Waits until new connections see this certificate.
async fn until_served(address: SocketAddr, pki: &Pki, expected: &[u8]) {
    let deadline = Instant::now() + RENEWAL_MAX;
    loop {
        if leaf(&connect(address, pki.client()).await.unwrap()) == expected {
            return;
        }
        assert!(Instant::now() < deadline, "the renewed certificate is not used");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_under_load_and_no_call_fails() {
    let mut pki = Pki::new();
    let runtime = Runtime::for_tests("renewed");
    let address = serving(&runtime, &pki, false).await;
    // One connection from before the renewal to its end, and new ones all the time.
    let mut kept = connect(address, pki.client()).await.unwrap();
    let before = leaf(&kept);
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (config, stop, calls) = (pki.client(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect(address, config.clone()).await.unwrap();
                    ask(&mut stream).await.unwrap();
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..2 {
        let [cert, key] = pki.pair();
        pki.publish(&cert, &key);
        until_served(address, &pki, &der(&cert)).await;
        ask(&mut kept).await.unwrap();
    }
    assert_eq!(leaf(&kept), before);
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    println!("{} calls over two renewals", calls.load(Ordering::Relaxed));
    assert!(calls.load(Ordering::Relaxed) > 100);
    runtime.stopping().cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_does_not_fit_keeps_the_one_before_and_shows() {
    let mut pki = Pki::new();
    let runtime = Runtime::for_tests("unfit");
    let address = serving(&runtime, &pki, false).await;
    let before = leaf(&connect(address, pki.client()).await.unwrap());
    let ([cert, key], [_, other]) = (pki.pair(), pki.pair());
    let unusable = async |value: &str| {
        let line = format!(r#"agentforge_tls_files_unusable{{service="unfit",setting="TLS_CERT"}} {value}"#);
        let deadline = Instant::now() + RENEWAL_MAX;
        while !runtime.process().scrape().await.lines().any(|found| found == line) {
            assert!(Instant::now() < deadline, "{line}");
            sleep(Duration::from_millis(100)).await;
        }
    };
    for (cert, key) in [(&*cert, &*other), ("", ""), (&*cert, "no key")] {
        pki.publish(cert, key);
        unusable("1").await;
        let mut stream = connect(address, pki.client()).await.unwrap();
        ask(&mut stream).await.unwrap();
        assert_eq!(leaf(&stream), before);
    }
    // As soon as both halves are there they are used.
    pki.publish(&cert, &key);
    until_served(address, &pki, &der(&cert)).await;
    unusable("0").await;
    let page = runtime.process().scrape().await;
    let expiry = page
        .lines()
        .find(|line| line.starts_with(r#"agentforge_tls_certificate_expiry_timestamp_seconds{service="unfit""#));
    assert!(expiry.is_some(), "{page}");
    runtime.stopping().cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_tls_without_a_certificate_or_with_an_old_version_are_refused() {
    let pki = Pki::new();
    let runtime = Runtime::for_tests("refusing");
    let address = serving(&runtime, &pki, true).await;
    let mut with = connect(address, pki.client_with_certificate()).await.unwrap();
    ask(&mut with).await.unwrap();
    // With TLS 1.3 the refusal comes with the first answer.
    let without = async { ask(&mut connect(address, pki.client()).await?).await };
    assert!(without.await.is_err(), "no client certificate");
    let stranger = Pki::new();
    let signed_elsewhere = async { ask(&mut connect(address, stranger.client_with_certificate()).await?).await };
    assert!(signed_elsewhere.await.is_err(), "another authority");

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), plain.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    for version in [[3, 1], [3, 2]] {
        let mut old = TcpStream::connect(address).await.unwrap();
        old.write_all(&client_hello(version)).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(5), old.read_to_end(&mut answer)).await.expect("it is closed");
        // A fatal alert: protocol_version.
        assert_eq!((answer.first(), answer.get(5..7)), (Some(&21), Some(&[2, 70][..])), "{version:?} {answer:?}");
    }
    runtime.stopping().cancel();
}

/// The hello of a client that knows nothing newer than this version.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    // No session; two suites of that time; no compression; the signatures that it takes, which rustls asks for first.
    body.extend([0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    body.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_told_with_its_setting_and_its_path() {
    let mut pki = Pki::new();
    let runtime = Runtime::for_tests("told");
    let (common, [cert, key]) = (pki.common(true), pki.pair());
    let open = |common: &Common| {
        let opened = ServerTls::of(common, HTTP_PROTOCOLS).map(|tls| Tls::open(&runtime, tls));
        opened.unwrap().map(drop).unwrap_err().to_string()
    };
    let [_, other] = pki.pair();
    for (cert, key, setting, name) in [
        (&*cert, &*other, "TLS_KEY", "tls.key"),
        (&*cert, "no key", "TLS_KEY", "tls.key"),
        ("nothing", &*key, "TLS_CERT", "tls.crt"),
    ] {
        pki.publish(cert, key);
        let error = open(&common);
        assert!(error.contains(setting) && error.contains(name), "{error}");
    }
    pki.publish(&cert, &key);
    std::fs::write(pki.path("ca.pem"), "nothing").unwrap();
    let error = open(&common);
    assert!(error.contains("TLS_CLIENT_CA") && error.contains("ca.pem"), "{error}");
    std::fs::remove_file(pki.path("ca.pem")).unwrap();
    let error = open(&common);
    assert!(error.contains("TLS_CLIENT_CA") && error.contains("ca.pem"), "{error}");
}

//! An HTTP server with configurable behaviour: answers, resets, hangs. Remembers what it got.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A request as the sink read it, with the time of its arrival.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
    /// Which request of this `webhook-id`, from 1.
    pub attempt: usize,
    pub answer: Answer,
}

impl Request {
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A status, more header lines, after a while.
    Status(u16, &'static str, Duration),
    /// 200, and the connection is closed this much later, regardless of what arrived on it meanwhile.
    Leave(Duration),
    /// The connection is closed without a word.
    Close,
    /// In the middle of the body.
    MidBody,
    /// Keeps the connection open and never answers.
    Hang,
    /// A byte now and then, forever.
    Drip,
}

pub const OK: Answer = Answer::Status(200, "", Duration::ZERO);

pub fn status(code: u16) -> Answer {
    Answer::Status(code, "", Duration::ZERO)
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;

/// The server. Ends with the test.
#[derive(Clone)]
pub struct Sink {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    attempts: Arc<Mutex<HashMap<String, usize>>>,
    script: Arc<Mutex<Arc<Script>>>,
    /// Requests that are not answered yet, and the most there were.
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Sink {
    pub async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::serve(None, script).await
    }

    /// A sink that speaks TLS with this certificate.
    pub async fn start_tls(
        tls: tokio_rustls::TlsAcceptor,
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Some(tls), script).await
    }

    async fn serve(
        tls: Option<tokio_rustls::TlsAcceptor>,
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script: Arc<Script> = Arc::new(script);
        let sink = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            attempts: Arc::default(),
            script: Arc::new(Mutex::new(script)),
            open: Arc::default(),
            most: Arc::default(),
        };
        let server = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, tls) = (server.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => server.connection(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                server.connection(stream).await;
                            }
                        }
                    }
                });
            }
        });
        sink
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// From now on.
    pub fn answer(&self, script: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Ids that were answered with 2xx, and how often.
    pub fn delivered(&self) -> HashMap<String, usize> {
        let mut ids = HashMap::new();
        for r in self.seen.lock().unwrap().iter() {
            if matches!(r.answer, Answer::Status(200..=299, ..) | Answer::Leave(_)) {
                *ids.entry(r.id().to_owned()).or_default() += 1;
            }
        }
        ids
    }

    /// The most requests at once so far.
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    async fn connection<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let mut buffer = Vec::new();
        while let Some(mut request) = read(&mut stream, &mut buffer).await {
            let script = self.script.lock().unwrap().clone();
            let id = request.headers.get("webhook-id").cloned().unwrap_or_default();
            request.attempt = {
                let mut attempts = self.attempts.lock().unwrap();
                let n = attempts.entry(id).or_default();
                *n += 1;
                *n
            };
            let answer = script(&request);
            request.answer = answer.clone();
            self.seen.lock().unwrap().push(request);
            let open = 1 + self.open.fetch_add(1, Ordering::SeqCst);
            self.most.fetch_max(open, Ordering::SeqCst);
            let goes_on = self.say(&mut stream, answer).await;
            self.open.fetch_sub(1, Ordering::SeqCst);
            if !goes_on {
                return;
            }
        }
    }

    async fn say<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, answer: Answer) -> bool {
        let text = match answer {
            Answer::Status(code, headers, wait) => {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                format!("HTTP/1.1 {code} x\r\n{headers}content-length: 2\r\n\r\nok")
            }
            Answer::Leave(after) => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                tokio::time::sleep(after).await;
                return false;
            }
            Answer::Close => return false,
            Answer::MidBody => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
                return false;
            }
            Answer::Drip => {
                let mut next: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
                while stream.write_all(next).await.is_ok() {
                    next = b".";
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                return false;
            }
            Answer::Hang => {
                // Until the other side gives up.
                let _ = stream.read(&mut [0; 64]).await;
                return false;
            }
        };
        stream.write_all(text.as_bytes()).await.is_ok()
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<Request> {
    // On the heap: it would make every future that awaits this one as large.
    let mut chunk = vec![0; 16 << 10];
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    let length: usize = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while buffer.len() < end + 4 + length {
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
    let body = buffer[end + 4..end + 4 + length].to_vec();
    buffer.drain(..end + 4 + length);
    Some(Request { path, headers, body, at: Instant::now(), attempt: 0, answer: OK })
}

/// A server that takes connections and closes them before a word: what a refused TLS looks like to plain HTTP.
pub async fn connect_refused() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let _ = TcpStream::connect(address).await;
    address
}

//! A place for webhooks on this machine: answers 200 and counts. For `dev`, where it stands in for somebody's
//! service, and for benchmarks, which run it as a process of its own.
//!
//! Small and quick on purpose: what it costs is part of what a benchmark measures. It keeps numbers, no bodies.

use agentforge_terminal::{Failure, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// A larger request is none of ours.
const REQUEST_MAX_BYTES: usize = 16 << 20;
/// Delays that are kept; a longer run keeps the first.
const DELAYS_MAX: usize = 1 << 20;
/// Ids that are told apart.
const IDS_MAX: usize = 1 << 22;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// How it answers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Wait this long before each answer
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = agentforge_terminal::duration)]
    delay: Duration,
    /// Never answer
    #[arg(long)]
    hang: bool,
    /// Where its address is written
    #[arg(long, value_name = "FILE")]
    ready_file: PathBuf,
}

/// What it counted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Requests that were answered, repeated ones included.
    pub requests: u64,
    /// How many different `webhook-id`s the requests had.
    pub ids: u64,
    /// Seconds since 1970 of the first and the last request.
    pub first_at: f64,
    /// When the last request came, in seconds since 1970.
    pub last_at: f64,
    /// From the moment that a body names as `"at"` (nanoseconds since 1970) to its answer, milliseconds, sorted.
    pub delays_ms: Vec<f64>,
    /// Requests without an answer, at most.
    pub most_at_once: u64,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    ids: HashSet<u64>,
    first: Duration,
    last: Duration,
    delays: Vec<u32>,
    open: u64,
    most: u64,
}

/// A sink. Cheap to clone.
#[derive(Clone)]
pub struct Sink {
    counts: Arc<Mutex<Counts>>,
    delay: Duration,
    hang: bool,
}

/// Runs as a process until it is killed.
///
/// # Errors
/// It cannot listen, or write its address.
pub async fn run(args: Args) -> Result {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let temporary = args.ready_file.with_extension("tmp");
    let text = serde_json::json!({ "url": format!("http://{address}") }).to_string();
    std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &args.ready_file))?;
    Sink { counts: Arc::default(), delay: args.delay, hang: args.hang }.serve(listener).await;
    Ok(())
}

impl Sink {
    /// Answers at once; the address that it has is returned.
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn open(port: u16) -> Result<(SocketAddr, impl Future<Output = ()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener =
            listener.map_err(|e| Failure::new(format!("the webhook sink cannot listen on port {port}: {e}")))?;
        let address = listener.local_addr()?;
        let sink = Self { counts: Arc::default(), delay: Duration::ZERO, hang: false };
        Ok((address, sink.serve(listener)))
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let sink = self.clone();
                    tokio::spawn(async move {
                        // A caller that went away is not a failure.
                        let _ = sink.connection(stream).await;
                    });
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::with_capacity(8 << 10);
        loop {
            let Some((head, end)) = request(&mut stream, &mut buffer).await? else { return Ok(()) };
            let is_post = buffer.starts_with(b"POST ");
            if !is_post {
                return stream.write_all(self.page(&buffer[..head]).as_bytes()).await;
            }
            self.arrived(&buffer[..head]);
            if self.hang {
                return std::future::pending().await;
            }
            if !self.delay.is_zero() {
                sleep(self.delay).await;
            }
            stream.write_all(OK).await?;
            self.answered(&buffer[head..end]);
            buffer.drain(..end);
        }
    }

    fn page(&self, head: &[u8]) -> String {
        if head.starts_with(b"DELETE ") {
            *self.lock() = Counts::default();
        }
        let counts = self.lock();
        let mut delays_ms: Vec<f64> = counts.delays.iter().map(|us| f64::from(*us) / 1e3).collect();
        delays_ms.sort_by(f64::total_cmp);
        let stats = Stats {
            requests: counts.requests,
            ids: counts.ids.len() as u64,
            first_at: counts.first.as_secs_f64(),
            last_at: counts.last.as_secs_f64(),
            delays_ms: if head.starts_with(b"GET /delays") { delays_ms } else { Vec::new() },
            most_at_once: counts.most,
        };
        let body = serde_json::to_string(&stats).unwrap_or_default();
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn arrived(&self, head: &[u8]) {
        let id = header(head, b"webhook-id: ").map(|id| {
            let mut hasher = DefaultHasher::new();
            id.hash(&mut hasher);
            hasher.finish()
        });
        let mut counts = self.lock();
        counts.open += 1;
        counts.most = counts.most.max(counts.open);
        if let Some(id) = id.filter(|_| counts.ids.len() < IDS_MAX) {
            counts.ids.insert(id);
        }
    }

    fn answered(&self, body: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sent = number_after(body, b"\"at\":").map(Duration::from_nanos);
        let mut counts = self.lock();
        counts.open -= 1;
        counts.requests += 1;
        if counts.requests == 1 {
            counts.first = now;
        }
        counts.last = now;
        if let Some(sent) = sent.filter(|_| counts.delays.len() < DELAYS_MAX) {
            let delay = now.saturating_sub(sent).as_micros();
            counts.delays.push(u32::try_from(delay).unwrap_or(u32::MAX));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one request into the buffer: where its head ends, and where it does. `None` at the end.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<(usize, usize)>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = at + 4;
            let length =
                header(&buffer[..head], b"content-length: ").and_then(|l| std::str::from_utf8(l).ok()?.parse().ok());
            let end = head + length.unwrap_or(0);
            if end > REQUEST_MAX_BYTES {
                return Ok(None);
            }
            while buffer.len() < end {
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            }
            return Ok(Some((head, end)));
        }
        if buffer.len() > REQUEST_MAX_BYTES || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The value of a header whose name is written in small letters, as our client does.
fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|b| *b == b'\n').find_map(|line| Some(line.strip_prefix(name)?.trim_ascii_end()))
}

fn number_after(body: &[u8], name: &[u8]) -> Option<u64> {
    let at = body.windows(name.len()).position(|w| w == name)? + name.len();
    let digits = body[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&body[at..at + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_client::rest;

    #[tokio::test]
    async fn it_answers_and_counts_what_is_different() {
        let (address, serve) = Sink::open(0).await.unwrap();
        tokio::spawn(serve);
        let mut stream = TcpStream::connect(address).await.unwrap();
        for id in ["a", "b", "a"] {
            let body = "{\"at\":1}";
            let text = format!("POST /x HTTP/1.1\r\nwebhook-id: {id}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = vec![0; OK.len()];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, OK);
        }
        let page = rest::page(&format!("http://{address}"), "/delays").await.unwrap();
        let stats: Stats = serde_json::from_str(&page).unwrap();
        assert_eq!((stats.requests, stats.ids, stats.delays_ms.len()), (3, 2, 3));
    }
}

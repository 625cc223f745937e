//! The clients of the benchmark, in a process of their own so that their share of the machine is known.
//!
//! Reads everything and looks for stamps: the moment at which an event was published, in its title.

use agentforge_terminal::{Failure, Result};
use memchr::memmem;
use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

/// Before a stamp.
pub const MARK: &[u8] = b"\"title\":\"@";
/// Digits of a stamp: microseconds since 1970.
pub const DIGITS: usize = 16;
/// Connections that are opened at once.
const OPEN_AT_ONCE: usize = 128;
/// For one connection.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// What is read at once.
const READ_BYTES: usize = 8 << 10;
/// Clients of one source address; the range of ports has no more.
const PER_ADDRESS: usize = 20_000;

/// What to open and for how long.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where
    #[arg(long)]
    address: std::net::SocketAddr,
    /// The WebSocket instead of server-sent events
    #[arg(long)]
    ws: bool,
    /// How many
    #[arg(long)]
    clients: usize,
    /// Events that each of them is to get; the process ends when all have, or the time is over
    #[arg(long)]
    expect: u64,
    /// Seconds after the last was opened
    #[arg(long)]
    within: u64,
    /// Written when all are open
    #[arg(long)]
    ready: PathBuf,
    /// Written at the end
    #[arg(long)]
    report: PathBuf,
}

/// What the clients of one process received.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Events, all clients together.
    pub delivered: u64,
    /// From stamp to client, milliseconds.
    pub p50_ms: f64,
    /// The same, of 99 in 100.
    pub p99_ms: f64,
    /// From the first event to the last, seconds.
    pub seconds: f64,
    /// What this process used of the processors, seconds.
    pub cpu_s: f64,
}

/// Opens, reads, reports.
///
/// # Errors
/// A connection that is refused, a file that cannot be written.
pub async fn run(args: Args) -> Result {
    let failed = |e: std::io::Error| Failure::new(format!("the load client: {e}"));
    let opening = Arc::new(Semaphore::new(OPEN_AT_ONCE));
    let (done, ended) = watch::channel(false);
    let left = Arc::new(AtomicU64::new(args.clients as u64));
    let (opened, mut open) = tokio::sync::mpsc::channel(args.clients.max(1));
    let mut clients = JoinSet::new();
    for n in 0..args.clients {
        let (opening, mut ended, left, opened) = (opening.clone(), ended.clone(), left.clone(), opened.clone());
        let (address, ws, expect) = (args.address, args.ws, args.expect);
        clients.spawn(async move {
            let permit = opening.acquire().await;
            let stream = timeout(OPEN_MAX, connect(address, ws, n)).await;
            drop(permit);
            let stream = stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
            let is_open = stream.as_ref().map(drop).map_err(|e| e.to_string());
            let _ = opened.send(is_open).await;
            let Ok(stream) = stream else { return Vec::new() };
            let mut latencies = Vec::new();
            tokio::select! {
                () = follow(stream, expect, &mut latencies, &left) => {}
                _ = ended.wait_for(|ended| *ended) => {}
            }
            latencies
        });
    }
    for _ in 0..args.clients {
        if let Some(Err(problem)) = open.recv().await {
            return Err(Failure::new(format!("a client was not let in: {problem}")));
        }
    }
    std::fs::write(&args.ready, "true").map_err(failed)?;
    let all = async {
        while left.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(Duration::from_secs(args.within), all).await;
    done.send_replace(true);
    let mut all: Vec<(u64, u32)> = clients.join_all().await.into_iter().flatten().collect();
    let ends = (all.iter().map(|(at, _)| *at).min(), all.iter().map(|(at, _)| *at).max());
    all.sort_unstable_by_key(|(_, latency)| *latency);
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).map_or(0.0, |(_, us)| f64::from(*us) / 1e3);
    let report = Report {
        delivered: all.len() as u64,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        seconds: ends.1.unwrap_or(0).saturating_sub(ends.0.unwrap_or(0)) as f64 / 1e6,
        cpu_s: super::usage::cpu(std::process::id()).as_secs_f64(),
    };
    let text = serde_json::to_vec(&report).map_err(anyhow::Error::from)?;
    std::fs::write(&args.report, text).map_err(failed)
}

async fn connect(address: std::net::SocketAddr, ws: bool, n: usize) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if n >= PER_ADDRESS {
        let last = u8::try_from(1 + n / PER_ADDRESS).unwrap_or(u8::MAX);
        socket.bind(([127, 0, 0, last], 0).into())?;
    }
    let mut stream = socket.connect(address).await?;
    stream.write_all(request(&address.to_string(), ws).as_bytes()).await?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let status = head.get(9..12).unwrap_or_default();
    if status == b"200" || status == b"101" {
        Ok(stream)
    } else {
        Err(std::io::Error::other(String::from_utf8_lossy(status).into_owned()))
    }
}

/// What opens a stream.
pub fn request(address: &str, ws: bool) -> String {
    let (path, upgrade) = if !ws {
        ("/events/stream", "")
    } else {
        (
            "/events/ws",
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        )
    };
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{upgrade}\r\n")
}

/// Reads stamps until enough came.
async fn follow(mut stream: TcpStream, expect: u64, latencies: &mut Vec<(u64, u32)>, left: &AtomicU64) {
    let finder = memmem::Finder::new(MARK);
    let mut buffer = vec![0; READ_BYTES];
    let mut held = 0;
    while (latencies.len() as u64) < expect {
        let Ok(n) = stream.read(&mut buffer[held..]).await else { return };
        if n == 0 {
            return;
        }
        let now = now_us();
        let bytes = &buffer[..held + n];
        let mut at = 0;
        while let Some(found) = finder.find(&bytes[at..]) {
            let start = at + found + MARK.len();
            let Some(digits) = bytes.get(start..start + DIGITS) else { break };
            let stamp = std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u64>().ok());
            if let Some(stamp) = stamp {
                let latency = u32::try_from(now.saturating_sub(stamp)).unwrap_or(u32::MAX);
                latencies.push((now, latency));
            }
            at = start + DIGITS;
        }
        // A stamp may be cut by the end of what was read.
        let keep = (bytes.len() - at).min(MARK.len() + DIGITS - 1);
        let from = bytes.len() - keep;
        buffer.copy_within(from..from + keep, 0);
        held = keep;
    }
    left.fetch_sub(1, Ordering::Relaxed);
    // It stays: the others' events go past a full house.
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

/// Microseconds since 1970; both sides run on one machine.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

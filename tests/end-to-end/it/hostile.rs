//! Hostile load on the listeners of every service: sockets that say nothing, heads, bodies and messages that do not end,
//! from one address and from many. Callers and probes are answered throughout.

mod memory;
mod sockets;

use agentforge_harness::{Proc, cargo_bin, eventually, free_port};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const SOON: Duration = Duration::from_secs(60);

/// A service as it ships, without anything that it needs: its listeners are open nevertheless.
struct Target {
    name: &'static str,
    process: Proc,
    http: SocketAddr,
    metrics: SocketAddr,
    grpc: Option<SocketAddr>,
    _dir: TempDir,
}

impl Target {
    async fn start(name: &'static str, settings: &[(&str, &str)]) -> Self {
        let _ = agentforge_runtime::Process::for_tests();
        let dir = TempDir::new().unwrap();
        let below = |name: &str| dir.path().join(name).display().to_string();
        for made in ["queue", "data"] {
            std::fs::create_dir(below(made)).unwrap();
        }
        let mut process = Proc::builder(cargo_bin(&format!("agentforge-{name}")))
            .envs([("ENV", "dev"), ("METRICS_PORT", "0"), ("HTTP_PORT", "0"), ("GRPC_PORT", "0")])
            .env("NATS_URL", format!("nats://127.0.0.1:{}", free_port()))
            .envs([
                ("DATA_DIR", below("data")),
                ("SYNC_QUEUE_DIR", below("queue")),
                ("SYNC_LEDGER_DIR", below("ledger")),
            ])
            .envs(settings.iter().copied())
            .start();
        let ready = process.ready(SOON).await;
        let at = |key: &str| {
            let url = ready[name][key].as_str()?;
            url.trim_start_matches("http://").split('/').next()?.parse().ok()
        };
        let metrics = at("metrics").unwrap_or_else(|| panic!("{name}: {ready}"));
        Self { name, process, http: at("http").unwrap_or(metrics), metrics, grpc: at("grpc"), _dir: dir }
    }

    /// Resident memory, bytes.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    async fn metric(&self, series: &str) -> f64 {
        let (_, page) = get(self.metrics, "/metrics", 250).await.unwrap();
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
    }

    async fn reaches(&self, series: &str, at_least: f64) {
        eventually(SOON, &format!("{} counts {series}", self.name), || async {
            let value = self.metric(series).await;
            if value >= at_least { Ok(()) } else { Err(value) }
        })
        .await;
    }
}

/// A connection from an address of this machine: all of 127.0.0.0/8 are.
async fn connect(to: SocketAddr, from: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into())?;
    socket.connect(to).await
}

/// A caller on a connection of its own: status and body.
async fn get(to: SocketAddr, path: &str, from: u8) -> std::io::Result<(u16, String)> {
    let asked = async {
        let mut stream = connect(to, from).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        status.map(|status| (status, body)).ok_or_else(|| std::io::Error::other(format!("answered {answer:?}")))
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await?
}

/// Probes on the port of probes and a caller on the service's own, each answered; the longest wait.
async fn all_are_answered(target: &Target, what: &str) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        for (port, path) in [(target.metrics, "/healthz"), (target.metrics, "/metrics"), (target.http, "/healthz")] {
            let began = Instant::now();
            let (status, _) =
                get(port, path, 250).await.unwrap_or_else(|e| panic!("{} at {path} during {what}: {e}", target.name));
            assert_eq!(status, 200, "{} at {path} during {what}", target.name);
            longest = longest.max(began.elapsed());
        }
    }
    longest
}

/// Whether the other side has ended the connection.
async fn has_ended(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match tokio::time::timeout(Duration::from_millis(20), stream.read(&mut bytes)).await {
            Err(_) => return false,
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
        }
    }
}

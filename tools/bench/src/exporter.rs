//! `agentforge bench exporter`: a scrape of the NATS exporter, compared with fetching the same bytes and discarding
//! them.
//!
//! Starts a NATS server with streams and consumers, and the exporter as a process of its own. Floor and
//! scrape take turns in the same run; the processor time is what the kernel accounts to the exporter.

use crate::{
    machine::{self, Machine},
    process,
    report::median,
    stack::resident_mib,
};
use agentforge_jetstream::{Nats, NatsConfig};
use agentforge_stack::child::Child;
use agentforge_terminal as output;
use agentforge_terminal::{Failure, Result};
use async_nats::jetstream::{
    consumer::{AckPolicy, pull},
    stream::{Config, Stream},
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Streams and consumers that are made at once.
const MAKE_AT_ONCE: usize = 64;
/// Messages of a stream, so that its consumers have something pending.
const MESSAGES: usize = 10;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Total number of consumers, distributed over the streams
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub consumers: u32,
    /// Streams
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams: u32,
    /// Measured scrapes of each kind, each with its floor
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// Scrapes of the compact family before memory is read again; 0 skips this
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub memory_scrapes: u32,
    /// Where the NATS server keeps its data; removed afterwards unless it existed
    #[arg(long, value_name = "DIR", default_value = ".agentforge-bench-exporter")]
    pub data_dir: PathBuf,
}

/// One way to scrape.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    flags: &'static [&'static str],
    is_packed: bool,
    /// What the exporter asks for with these flags.
    asks: [&'static str; 2],
}

const COMPACT: Kind = Kind {
    name: "compact",
    flags: &["--no-stock-jetstream"],
    is_packed: false,
    asks: ["/varz", "/jsz?consumers=true&config=true"],
};
const STOCK: Kind = Kind {
    name: "stock and compact",
    flags: &[],
    is_packed: false,
    asks: ["/varz", "/jsz?consumers=true&config=true&raft=true"],
};
const KINDS: [Kind; 4] = [
    COMPACT,
    Kind { name: "compact, gzip", is_packed: true, ..COMPACT },
    STOCK,
    Kind { name: "stock and compact, gzip", is_packed: true, ..STOCK },
];

/// What one way costs, medians of all rounds.
#[derive(Debug, Serialize)]
struct Measured {
    kind: &'static str,
    floor_ms: f64,
    scrape_ms: f64,
    ratio_to_floor: f64,
    cpu_ms: f64,
    answer_bytes: u64,
    page_bytes: u64,
    rss_mib: u64,
}

/// Resident memory over many scrapes, MiB.
#[derive(Debug, Serialize)]
struct Memory {
    scrapes: u32,
    after_tenth_mib: u64,
    after_all_mib: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    consumers: u32,
    streams: u32,
    rounds: u32,
    kinds: Vec<Measured>,
    memory: Option<Memory>,
    machine: Machine,
}

/// Runs everything and prints the report.
///
/// # Errors
/// When something does not start or answer.
pub async fn run(args: Args, json: bool) -> Result {
    let make = |e: std::io::Error| Failure::new(format!("cannot make {}: {e}", args.data_dir.display()));
    let remove = !args.data_dir.exists();
    std::fs::create_dir_all(&args.data_dir).map_err(make)?;
    let dir = args.data_dir.canonicalize().map_err(make)?;
    let report = everything(&args, &dir, json).await;
    if remove {
        let _ = std::fs::remove_dir_all(&dir);
    }
    report?.print(json)
}

async fn everything(args: &Args, dir: &Path, json: bool) -> Result<Report> {
    let machine = machine::describe(dir)?;
    let (_server, url, monitor) = process::nats_server(dir).await?;
    furnish(&url, args).await?;
    let mut kinds = Vec::new();
    for kind in KINDS {
        let measured = measure(kind, &monitor, dir, args.rounds).await?;
        if !json {
            anstream::eprintln!("{measured}");
        }
        kinds.push(measured);
    }
    let memory = match args.memory_scrapes {
        0 => None,
        scrapes => Some(memory(&monitor, dir, scrapes).await?),
    };
    let Args { consumers, streams, rounds, .. } = *args;
    Ok(Report { consumers, streams, rounds, kinds, memory, machine })
}

/// Streams with messages, and durable consumers that have none of them yet.
async fn furnish(url: &str, args: &Args) -> Result {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("cannot make streams and consumers: {e}"));
    let config = NatsConfig::for_url(url).map_err(|e| failed(&e))?;
    let nats = Nats::connect(&config, "agentforge-bench").await.map_err(|e| failed(&e))?;
    if !nats.wait_connected(Duration::from_secs(10)).await {
        return Err(failed(&"NATS cannot be reached"));
    }
    let nats = &nats;
    let streams = stream::iter(0..args.streams).map(|n| async move {
        let config = Config {
            name: format!("stream-{n:05}"),
            subjects: vec![format!("bench.{n}.>")],
            max_messages: 1_000_000,
            ..Config::default()
        };
        nats.jetstream().create_stream(config).await.map_err(|e| failed(&e))?;
        for _ in 0..MESSAGES {
            let published = nats.jetstream().publish(format!("bench.{n}.a"), "x".into()).await;
            published.map_err(|e| failed(&e))?.await.map_err(|e| failed(&e))?;
        }
        nats.jetstream().get_stream(format!("stream-{n:05}")).await.map_err(|e| failed(&e))
    });
    let streams: Vec<Stream> = streams.buffer_unordered(MAKE_AT_ONCE).try_collect().await?;
    let streams = &streams;
    let consumers = stream::iter(0..args.consumers).map(|n| async move {
        let config = pull::Config {
            durable_name: Some(format!("worker-{n:06}")),
            description: Some("a consumer of the benchmark".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        let stream = &streams[n as usize % streams.len()];
        stream.create_consumer(config).await.map(drop).map_err(|e| failed(&e))
    });
    consumers.buffer_unordered(MAKE_AT_ONCE).try_collect::<()>().await?;
    let _ = nats.drain().await;
    Ok(())
}

/// The exporter as a process.
struct Exporter {
    child: Child,
    address: String,
}

impl Exporter {
    async fn start(kind: Kind, monitor: &str, dir: &Path) -> Result<Self> {
        let ready: PathBuf = dir.join("exporter.json");
        let _ = std::fs::remove_file(&ready);
        let mut command = process::sibling("agentforge-nats-exporter")?;
        command.args(["-varz", "-jsz=all", "-port", "0", "--timeout=60s"]).args(kind.flags).arg(monitor);
        command.env("READY_FILE", &ready).env("LOG_LEVEL", "warn");
        let log = dir.join("exporter.log");
        let child = process::spawn(&command, &log).await?;
        let written = process::until_written(&ready, "nats-exporter", &log).await?;
        let http = written["nats-exporter"]["http"].as_str();
        let address = http.and_then(|url| url.strip_prefix("http://")).map(str::to_owned);
        let address = address.ok_or_else(|| Failure::new("the ready file names no address"))?;
        Ok(Self { child, address })
    }

    async fn scrape(&self, is_packed: bool) -> Result<(Duration, u64)> {
        let header = if is_packed { "Accept-Encoding: gzip\r\n" } else { "" };
        fetch(&self.address, "/metrics", header).await
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.pid).unwrap_or_default()
    }

    /// Processor time of all its threads so far.
    fn cpu(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let nanos = threads.filter_map(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

async fn measure(kind: Kind, monitor: &str, dir: &Path, rounds: u32) -> Result<Measured> {
    let exporter = Exporter::start(kind, monitor, dir).await?;
    let server = monitor.trim_start_matches("http://");
    // The first of each opens connections and takes memory.
    exporter.scrape(kind.is_packed).await?;
    let (mut floors, mut scrapes, mut cpu) = (vec![], vec![], vec![]);
    let (mut answer_bytes, mut page_bytes) = (0, 0);
    for _ in 0..rounds {
        let mut floor = (Duration::ZERO, 0);
        for path in kind.asks {
            let (took, bytes) = fetch(server, path, "").await?;
            floor = (floor.0 + took, floor.1 + bytes);
        }
        let before = exporter.cpu();
        let scrape = exporter.scrape(kind.is_packed).await?;
        cpu.push(exporter.cpu() - before);
        floors.push(floor.0);
        scrapes.push(scrape.0);
        (answer_bytes, page_bytes) = (floor.1, scrape.1);
    }
    let ms = |all: &[Duration]| median(all.iter().map(|took| took.as_secs_f64() * 1e3));
    Ok(Measured {
        kind: kind.name,
        floor_ms: ms(&floors),
        scrape_ms: ms(&scrapes),
        ratio_to_floor: median(scrapes.iter().zip(&floors).map(|(s, f)| s.as_secs_f64() / f.as_secs_f64())),
        cpu_ms: ms(&cpu),
        answer_bytes,
        page_bytes,
        rss_mib: resident_mib(exporter.pid()).unwrap_or_default(),
    })
}

async fn memory(monitor: &str, dir: &Path, scrapes: u32) -> Result<Memory> {
    let exporter = Exporter::start(COMPACT, monitor, dir).await?;
    let mut after_tenth_mib = 0;
    for n in 0..scrapes {
        exporter.scrape(false).await?;
        if n == scrapes / 10 {
            after_tenth_mib = resident_mib(exporter.pid()).unwrap_or_default();
        }
    }
    Ok(Memory { scrapes, after_tenth_mib, after_all_mib: resident_mib(exporter.pid()).unwrap_or_default() })
}

/// Reads an answer to its end and throws it away: how long it took, and its bytes.
async fn fetch(address: &str, path: &str, header: &str) -> Result<(Duration, u64)> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot read http://{address}{path}: {e}"));
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut buffer = vec![0; 256 << 10];
    let (mut bytes, mut is_good) = (0, false);
    loop {
        let n = stream.read(&mut buffer).await.map_err(failed)?;
        if bytes == 0 {
            is_good = buffer[..n].get(9..12) == Some(b"200");
        }
        if n == 0 {
            break;
        }
        bytes += n as u64;
    }
    let took = begun.elapsed();
    if is_good { Ok((took, bytes)) } else { Err(Failure::new(format!("http://{address}{path} does not answer 200"))) }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<24} floor {:>6.1} ms ({:>8}), scrape {:>6.1} ms ({:>8}), ratio {:.2}, CPU {:>5.1} ms, {} MiB",
            self.kind,
            self.floor_ms,
            output::bytes(self.answer_bytes),
            self.scrape_ms,
            output::bytes(self.page_bytes),
            self.ratio_to_floor,
            self.cpu_ms,
            self.rss_mib
        )
    }
}

impl Report {
    fn print(&self, json: bool) -> Result {
        if json {
            return output::Output { json }.document(self);
        }
        anstream::println!("{}", self.machine);
        anstream::println!("{} consumers in {} streams, medians of {}", self.consumers, self.streams, self.rounds);
        for measured in &self.kinds {
            anstream::println!("{measured}");
        }
        if let Some(Memory { scrapes, after_tenth_mib, after_all_mib }) = self.memory {
            anstream::println!(
                "resident memory after {} scrapes {after_tenth_mib} MiB, after {scrapes} {after_all_mib} MiB",
                scrapes / 10
            );
        }
        Ok(())
    }
}

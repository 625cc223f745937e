//! `agentforge bench sync`: files per second through the syncdaemon, compared with raw publishing of the same files.
//!
//! Starts a NATS server and the syncdaemon as separate processes. The files appear all at once, by the rename of a
//! directory, and the clock stops when the last one is in the synced ledger; the removal of the files, which continues
//! afterwards, is timed as well. The floor reads files of the same bytes and publishes them with acknowledgements to a
//! stream of the same configuration, in the same run.

mod made;

use crate::{
    machine::{self, Machine},
    process::{ports, sibling, spawn, until_written},
    report::median,
    stack::fetch,
};
use agentforge_jetstream::topology::{EvidenceConfig, evidence_plan};
use agentforge_jetstream::{Nats, NatsConfig, Publisher, subjects::STREAM_EVIDENCE};
use agentforge_ledger::files;
use agentforge_message_id::MsgId;
use agentforge_stack::{child::Child, locate};
use agentforge_terminal as output;
use agentforge_terminal::{Failure, Result};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::stream::Config;
use futures_util::stream::{FuturesUnordered, StreamExt};
use made::{like_a_hash, make_files, read_all};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long anything may take to come up.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longest standstill before a run is given up.
const STALL_MAX: Duration = Duration::from_secs(60);
/// The site of the run.
const SITE: &str = "bench";
/// The stream of the floor.
const FLOOR_STREAM: &str = "bench_sync_floor";
/// A file that is found and not renamed in must have rested for this long.
const SETTLE: Duration = Duration::from_secs(2);
/// Files that may be read ahead of the publishing in the floor.
const FLOOR_AHEAD: usize = 64;

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files of 4 KiB in one round
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub small: u32,
    /// Files of 1 MiB in one round
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub large: u32,
    /// Rounds; each measures the floor and the product, the medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub rounds: u32,
    /// Single files whose delivery is timed
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub singles: u32,
    /// Messages in flight, of the product and of the floor
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub inflight: u32,
    /// Where files, streams and ledger are kept; removed afterwards unless it existed
    #[arg(long, value_name = "DIR", default_value = ".agentforge-bench-sync")]
    pub data_dir: PathBuf,
}

/// One size of files.
#[derive(Debug, Serialize)]
struct Sized {
    bytes: usize,
    files: u32,
    rounds: Vec<Round>,
    files_per_s: f64,
    drained_per_s: f64,
    floor_per_s: f64,
    ratio_to_floor: f64,
}

/// Floor and product, one after the other.
#[derive(Debug, Serialize)]
struct Round {
    floor_per_s: f64,
    /// Until the last file was in the synced ledger.
    files_per_s: f64,
    /// Until the last file was removed, too.
    drained_per_s: f64,
}

/// From the rename of a single file to its message in the stream.
#[derive(Debug, Serialize)]
struct Latency {
    files: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    small: Sized,
    large: Sized,
    latency: Latency,
    inflight: u32,
    lost: u64,
    daemon_rss_mib: u64,
    machine: Machine,
}

/// Runs everything and prints the report.
///
/// # Errors
/// When something does not start, stands still, or files are missing in stream or ledger.
pub async fn run(args: Args, json: bool) -> Result {
    let say = |text: String| {
        if !json {
            anstream::eprintln!("{text}");
        }
    };
    let mut site = Site::start(&args).await?;
    let machine = machine::describe(&site.dir)?;
    say(format!("{machine}"));
    let (mut sizes, mut lost) = (Vec::new(), 0);
    // Large files first: the disk is busy with the removal of many small ones for longer than one waits.
    for (bytes, count) in [(1 << 20, args.large), (4 << 10, args.small)] {
        let mut rounds = Vec::new();
        for n in 1..=args.rounds {
            let round = site.round(bytes, count, n, args.inflight as usize).await?;
            say(format!(
                "{:>9}: round {n}: floor {:.0}/s, files {:.0}/s, ratio {:.2}, removed {:.0}/s",
                output::bytes(bytes as u64),
                round.floor_per_s,
                round.files_per_s,
                round.files_per_s / round.floor_per_s,
                round.drained_per_s
            ));
            lost += site.lost(count).await?;
            rounds.push(round);
        }
        sizes.push(Sized {
            bytes,
            files: count,
            files_per_s: median(rounds.iter().map(|r| r.files_per_s)),
            drained_per_s: median(rounds.iter().map(|r| r.drained_per_s)),
            floor_per_s: median(rounds.iter().map(|r| r.floor_per_s)),
            ratio_to_floor: median(rounds.iter().map(|r| r.files_per_s / r.floor_per_s)),
            rounds,
        });
    }
    let latency = site.singles(args.singles).await?;
    lost += site.lost(args.singles).await?;
    let rss = site.rss_mib();
    site.stop().await?;
    let (Some(small), Some(large)) = (sizes.pop(), sizes.pop()) else {
        return Err(Failure::new("no size was measured"));
    };
    let report = Report { small, large, latency, inflight: args.inflight, lost, daemon_rss_mib: rss, machine };
    report.print(json)?;
    if lost == 0 { Ok(()) } else { Err(Failure::new(format!("{lost} files are not in stream and ledger"))) }
}

impl Report {
    fn print(&self, json: bool) -> Result {
        if json {
            return output::Output { json }.document(self);
        }
        for s in [&self.small, &self.large] {
            anstream::println!(
                "{:>9} files {:>7.0}/s   floor {:>7.0}/s   ratio {:.2} (medians of {} rounds of {}), removed {:.0}/s",
                output::bytes(s.bytes as u64),
                s.files_per_s,
                s.floor_per_s,
                s.ratio_to_floor,
                s.rounds.len(),
                s.files,
                s.drained_per_s
            );
        }
        let Latency { files, p50_ms, p99_ms, max_ms } = self.latency;
        anstream::println!(
            "rename to in stream ({files} files): p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, max {max_ms:.1} ms"
        );
        anstream::println!("lost {}, {} in flight, daemon {} MiB", self.lost, self.inflight, self.daemon_rss_mib);
        Ok(())
    }
}

/// What `/status` of the daemon answers, as far as it is used.
#[derive(Debug, Deserialize)]
struct Status {
    replayed: u64,
    queue_depth: u64,
}

/// A server and a syncdaemon. Killed when dropped.
struct Site {
    dir: PathBuf,
    remove: bool,
    nats: Nats,
    daemon: Child,
    http: String,
    /// Deliveries in the ledger that were counted.
    lines: u64,
    server: Child,
}

impl Site {
    async fn start(args: &Args) -> Result<Self> {
        let remove = !args.data_dir.exists();
        let make = |e: std::io::Error| Failure::new(format!("cannot make {}: {e}", args.data_dir.display()));
        std::fs::create_dir_all(args.data_dir.join("nats")).map_err(make)?;
        let dir = args.data_dir.canonicalize().map_err(make)?;
        let (server, url) = start_server(&dir).await?;
        let nats = connect(&url).await?;
        let (daemon, http) = start_daemon(&dir, &url, args).await?;
        Ok(Self { dir, remove, nats, daemon, http, lines: 0, server })
    }

    /// Floor and product, each with files of its own that have the same bytes. They take turns in going
    /// first: what goes before leaves the machine slower or faster.
    async fn round(&self, bytes: usize, count: u32, n: u32, inflight: usize) -> Result<Round> {
        let folders = ["floor", "made"].map(|name| self.dir.join(format!("{name}-{bytes}-{n}")));
        for folder in folders.clone() {
            let seed = u64::from(n) << 32 | bytes as u64;
            blocking(move || make_files(&folder, bytes, count, seed)).await?;
        }
        let [of_floor, of_product] = folders;
        let (mut floor_per_s, mut files_per_s, mut drained_per_s) = (0.0, 0.0, 0.0);
        for turn in 0..2 {
            self.rest(bytes, count).await?;
            if (n + turn) % 2 == 1 {
                floor_per_s = self.floor(&of_floor, count, inflight).await?;
            } else {
                (files_per_s, drained_per_s) = self.product(&of_product, count).await?;
            }
        }
        Ok(Round { floor_per_s, files_per_s, drained_per_s })
    }

    /// Lets earlier work end: files are sent after they have settled, and writes are on the disk. Then makes both find
    /// the system's free memory alike, lately used by a file as large as their stream: the second side was faster by a
    /// fifth, in memory that the first had left.
    async fn rest(&self, bytes: usize, count: u32) -> Result {
        sleep(SETTLE).await;
        let path = self.dir.join("used-and-freed");
        blocking(move || {
            let (content, mut file) = (vec![0u8; bytes], File::create(&path)?);
            for _ in 0..count {
                file.write_all(&content)?;
            }
            std::fs::remove_file(&path)?;
            drop(file);
            rustix::fs::sync();
            Ok(())
        })
        .await
    }

    /// Files a second until the last was in the synced ledger, and until the last was removed.
    async fn product(&self, folder: &Path, count: u32) -> Result<(f64, f64)> {
        let before = self.status().await?.replayed;
        let failed = |e: std::io::Error| Failure::new(format!("cannot move the files into place: {e}"));
        let name = folder.file_name().unwrap_or_default();
        let place = self.dir.join("replay").join(name);
        let begun = Instant::now();
        std::fs::rename(folder, &place).map_err(failed)?;
        self.until(&place, |status, _| status.replayed >= before + u64::from(count)).await?;
        let files_per_s = f64::from(count) / begun.elapsed().as_secs_f64();
        self.until(&place, |_, is_gone| is_gone()).await?;
        Ok((files_per_s, f64::from(count) / begun.elapsed().as_secs_f64()))
    }

    /// Until the daemon says so, given its status and whether all files of a directory are removed.
    async fn until(&self, place: &Path, done: impl Fn(&Status, &dyn Fn() -> bool) -> bool) -> Result {
        let mut last = ((0, 0), Instant::now());
        loop {
            let status = self.status().await?;
            let is_empty = |dir: &Path| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
            if done(&status, &|| is_empty(place) && is_empty(&self.dir.join("replay/.sent"))) {
                return Ok(());
            }
            let now = (status.replayed, status.queue_depth);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > STALL_MAX {
                return Err(Failure::new(format!("{} files are left and nothing moves", status.queue_depth)));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Files of the same bytes, read and published with acknowledgements; removed afterwards.
    async fn floor(&self, folder: &Path, count: u32, inflight: usize) -> Result<f64> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("floor: {e}"));
        let _ = self.nats.jetstream().delete_stream(FLOOR_STREAM).await;
        let plan = evidence_plan(&EvidenceConfig::default());
        let stream = plan.streams.into_iter().next().ok_or_else(|| Failure::new("floor: no stream is planned"))?;
        let stream = Config { name: FLOOR_STREAM.into(), subjects: vec![format!("{FLOOR_STREAM}.>")], ..stream };
        self.nats.jetstream().create_stream(stream).await.map_err(|e| failed(&e))?;
        let publisher = Publisher::with_limits(self.nats.clone(), inflight, Duration::from_secs(30));
        let (to, mut contents) = mpsc::channel(FLOOR_AHEAD);
        let folder = folder.to_owned();
        let from = folder.clone();
        let begun = Instant::now();
        let reader = tokio::task::spawn_blocking(move || read_all(&from, &to));
        let (mut acks, mut published, mut stored) = (FuturesUnordered::new(), 0u32, 0u32);
        while stored < count {
            tokio::select! {
                Some(ack) = acks.next(), if !acks.is_empty() => {
                    let ack: std::result::Result<_, agentforge_jetstream::publish::Error> = ack;
                    ack.map_err(|e| failed(&e))?;
                    stored += 1;
                }
                Some(content) = contents.recv(), if acks.len() < inflight => {
                    let id = MsgId::outbox(&published.to_string());
                    let subject = format!("{FLOOR_STREAM}.{SITE}.{}", like_a_hash(published + 1));
                    let sent = publisher.send(subject, id, HeaderMap::new(), content).await;
                    acks.push(sent.map_err(|e| failed(&e))?);
                    published += 1;
                }
                else => return Err(Failure::new(format!("floor: {stored} of {count} files were published"))),
            }
        }
        let rate = f64::from(count) / begun.elapsed().as_secs_f64();
        reader.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let _ = self.nats.jetstream().delete_stream(FLOOR_STREAM).await;
        blocking(move || std::fs::remove_dir_all(folder)).await?;
        Ok(rate)
    }

    /// One file after the other, each when the one before it has arrived.
    async fn singles(&self, count: u32) -> Result<Latency> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("single files: {e}"));
        let js = self.nats.jetstream();
        let stream = js.get_stream(STREAM_EVIDENCE).await.map_err(|e| failed(&e))?;
        let config = push::OrderedConfig {
            deliver_subject: self.nats.client().new_inbox(),
            deliver_policy: DeliverPolicy::New,
            ..push::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|e| failed(&e))?;
        let mut messages = consumer.messages().await.map_err(|e| failed(&e))?;
        let (unfinished, mut took) = (self.dir.join("single"), Vec::new());
        for n in 0..count {
            std::fs::write(&unfinished, format!("single file {n} of {}", std::process::id()))
                .map_err(|e| failed(&e))?;
            let begun = Instant::now();
            std::fs::rename(&unfinished, self.dir.join("replay").join(format!("single-{n}")))
                .map_err(|e| failed(&e))?;
            match timeout(STALL_MAX, messages.next()).await {
                Ok(Some(Ok(_))) => took.push(begun.elapsed()),
                Ok(Some(Err(e))) => return Err(failed(&e)),
                _ => return Err(Failure::new("a single file did not arrive")),
            }
            // Some are sent into idleness, and some right after the one before.
            sleep(Duration::from_millis(u64::from(n % 10) * 3)).await;
        }
        took.sort_unstable();
        let at = |q: f64| took[((took.len() - 1) as f64 * q).round() as usize].as_secs_f64() * 1e3;
        Ok(Latency { files: took.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) })
    }

    /// How many of the files that were delivered since the last call are not both in the ledger and in the
    /// stream. Empties the stream, so that each round begins with as little as the floor's.
    async fn lost(&mut self, delivered: u32) -> Result<u64> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("accounting: {e}"));
        let delivered = u64::from(delivered);
        let deadline = Instant::now() + READY_WITHIN;
        let stream = self.nats.jetstream().get_stream(STREAM_EVIDENCE).await.map_err(|e| failed(&e))?;
        let (lines, there) = loop {
            let lines = self.ledger_lines().await?;
            let messages = stream.get_info().await.map_err(|e| failed(&e))?.state.messages;
            let there = messages.min(lines.saturating_sub(self.lines));
            if there >= delivered || Instant::now() > deadline {
                break (lines, there);
            }
            sleep(Duration::from_millis(50)).await;
        };
        stream.purge().await.map_err(|e| failed(&e))?;
        self.lines = lines;
        Ok(delivered.saturating_sub(there))
    }

    /// Deliveries in the ledger.
    async fn ledger_lines(&self) -> Result<u64> {
        let dir = self.dir.join("ledger");
        blocking(move || {
            let mut lines = 0u64;
            files::read::<std::io::Error>(&dir, |_, _, line| {
                lines += u64::from(line.is_ok_and(|entry| entry.is_delivery()));
                Ok(())
            })?;
            Ok(lines)
        })
        .await
    }

    async fn status(&self) -> Result<Status> {
        let page = fetch(&self.http, "/status").await?;
        serde_json::from_str(&page).map_err(|e| Failure::new(format!("the daemon's /status cannot be read: {e}")))
    }

    fn rss_mib(&self) -> u64 {
        i32::try_from(self.daemon.pid).ok().and_then(crate::stack::resident_mib).unwrap_or(0)
    }

    async fn stop(mut self) -> Result {
        let _ = self.nats.drain().await;
        self.daemon.kill().await;
        self.server.kill().await;
        if self.remove {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
        Ok(())
    }
}

async fn connect(url: &str) -> Result<Nats> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("connect to NATS: {e}"));
    let config = NatsConfig::for_url(url).map_err(|e| failed(&e))?;
    let nats = Nats::connect(&config, "agentforge-bench").await.map_err(|e| failed(&e))?;
    if nats.wait_connected(READY_WITHIN).await { Ok(nats) } else { Err(Failure::new("NATS cannot be reached")) }
}

async fn start_server(dir: &Path) -> Result<(Child, String)> {
    let program = tokio::task::spawn_blocking(locate::nats_server).await.map_err(anyhow::Error::from)??;
    let folder = dir.join("nats");
    let config = folder.join("nats-server.conf");
    // A file of 1 MiB fits no message of the default size, neither of the product nor of the floor.
    let text = format!(
        "listen: \"127.0.0.1:-1\"\nmax_payload: 8388608\nmax_pending: 67108864\njetstream {{ store_dir: {} }}\n",
        serde_json::Value::from(folder.to_string_lossy())
    );
    std::fs::write(&config, text).map_err(|e| Failure::new(format!("cannot write {}: {e}", config.display())))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&config).arg("--ports_file_dir").arg(&folder);
    let log = dir.join("nats.log");
    let child = spawn(&command, &log).await?;
    let text = ports(&child, &folder, &log).await?;
    let url = text["nats"][0].as_str().ok_or_else(|| Failure::new("the ports file names no address"))?.to_owned();
    Ok((child, url))
}

async fn start_daemon(dir: &Path, nats_url: &str, args: &Args) -> Result<(Child, String)> {
    let ready = dir.join("ready.json");
    let _ = std::fs::remove_file(&ready);
    let mut command = sibling("agentforge-syncdaemon")?;
    command
        .env("NATS_URL", nats_url)
        .env("SITE", SITE)
        .env("SYNC_QUEUE_DIR", dir.join("replay"))
        .env("SYNC_LEDGER_DIR", dir.join("ledger"))
        .env("SYNC_MAX_INFLIGHT", args.inflight.to_string())
        .env("EVIDENCE_MAX_BYTES", room(args).to_string())
        .env("HTTP_PORT", "0")
        .env("METRICS_PORT", "0")
        .env("READY_FILE", &ready)
        .env("LOG_LEVEL", "warn");
    let log = dir.join("syncdaemon.log");
    let child = spawn(&command, &log).await?;
    let text = until_written(&ready, "syncdaemon", &log).await?;
    let http = text["syncdaemon"]["http"].as_str().ok_or_else(|| Failure::new("the ready file names no address"))?;
    Ok((child, http.to_owned()))
}

/// All files of a round with what the stream adds to each, in bytes: it is emptied after each.
fn room(args: &Args) -> u64 {
    let largest = (u64::from(args.small) * (8 << 10)).max(u64::from(args.large) * (2 << 20));
    largest.max(u64::from(args.singles) * (8 << 10)) + (64 << 20)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from)?;
    done.map_err(|e| Failure::new(format!("files of the run: {e}")))
}

//! `agentforge bench webhooks`: events per second through the broadcaster, compared with a floor that pulls the same
//! messages, posts them with the same HTTP client, acknowledges, and does nothing else.
//!
//! NATS, broadcaster and sinks are processes of their own. For a round the broadcaster is frozen while events
//! are published; then the floor drains them, then the broadcaster. The sink counts and keeps the time.

mod floor;
mod sink;

use crate::{
    machine::{self, Machine},
    process::{failed, nats_server, sibling, spawn, until_written},
    report::median,
    stack::resident_mib,
};
use agentforge_client::rest;
use agentforge_jetstream::{HeaderMap, Nats, NatsConfig, Publisher};
use agentforge_message_id::MsgId;
use agentforge_stack::child::Child;
use agentforge_terminal as output;
use agentforge_terminal::{Failure, Result};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use rustix::process::Signal;
use serde::Serialize;
use sink::SinkProcess;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::{interval, sleep};

/// Longest standstill before a run is given up.
const STALL_MAX: Duration = Duration::from_secs(60);
const FAST: &str = "todos.events";
const SLOW: &str = "agentforge.events.bench.slow";
/// How the slow sink answers.
const SLOW_DELAY_MS: u64 = 50;
/// Events a second when latency is measured.
const RATE: u64 = 500;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Events of one round
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub count: u32,
    /// Rounds; each measures the floor and the product, the medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub rounds: u32,
    /// Requests in flight, of the product and of the floor
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub inflight: u32,
    /// Seconds for each measurement of latency
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Pairs of measurements with and without a dead and a hanging endpoint
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=20))]
    pub pairs: u32,
    /// Where files and streams are kept; removed afterwards unless it existed
    #[arg(long, value_name = "DIR", default_value = ".agentforge-bench-webhooks")]
    pub data_dir: PathBuf,
}

/// Floor and product on the same messages.
#[derive(Debug, Serialize)]
struct Round {
    floor_per_s: f64,
    events_per_s: f64,
}

/// From the publish of an event to the sink's answer.
#[derive(Debug, Clone, Serialize)]
struct Latency {
    events: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// The same with a dead and a hanging endpoint.
#[derive(Debug, Serialize)]
struct Isolation {
    alone_p99_ms: Vec<f64>,
    beside_p99_ms: Vec<f64>,
    ratio: f64,
}

/// With a sink that takes its time.
#[derive(Debug, Serialize)]
struct Bounded {
    delay_ms: u64,
    events_per_s: f64,
    /// What so many requests in flight allow.
    possible_per_s: f64,
    most_at_once: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    count: u32,
    inflight: u32,
    rounds: Vec<Round>,
    events_per_s: f64,
    floor_per_s: f64,
    ratio_to_floor: f64,
    slow: Bounded,
    latency: Latency,
    isolation: Option<Isolation>,
    lost: u64,
    rss_mib: u64,
    machine: Machine,
}

/// Runs everything and prints the report.
///
/// # Errors
/// When something does not start, stands still, or events are missing.
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
    let say = |text: String| {
        if !json {
            anstream::eprintln!("{text}");
        }
    };
    let machine = machine::describe(dir)?;
    let stage = Stage::start(args, dir).await?;
    let mut rounds = Vec::new();
    for n in 1..=args.rounds {
        let round = stage.round(args, n).await?;
        let Round { floor_per_s, events_per_s } = round;
        say(format!(
            "round {n}: floor {floor_per_s:.0}/s, events {events_per_s:.0}/s, ratio {:.2}",
            events_per_s / floor_per_s
        ));
        rounds.push(round);
    }
    let slow = stage.slow(args).await?;
    say(format!("{} ms sink: {:.0}/s of {:.0}/s possible", slow.delay_ms, slow.events_per_s, slow.possible_per_s));
    let latency = stage.latency(args).await?;
    say(format!(
        "at {RATE}/s: p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms",
        latency.p50_ms, latency.p99_ms, latency.max_ms
    ));
    let isolation = match args.pairs {
        0 => None,
        pairs => Some(stage.isolation(args, pairs).await?),
    };
    Ok(Report {
        count: args.count,
        inflight: args.inflight,
        events_per_s: median(rounds.iter().map(|r| r.events_per_s)),
        floor_per_s: median(rounds.iter().map(|r| r.floor_per_s)),
        ratio_to_floor: median(rounds.iter().map(|r| r.events_per_s / r.floor_per_s)),
        rounds,
        slow,
        latency,
        isolation,
        lost: stage.lost.load(Ordering::Relaxed),
        rss_mib: resident_mib(stage.broadcaster_pid()).unwrap_or_default(),
        machine,
    })
}

struct Stage {
    dir: PathBuf,
    _server: Child,
    nats_url: String,
    nats: Nats,
    broadcaster: Child,
    http: String,
    fast: SinkProcess,
    slow: SinkProcess,
    hanging: SinkProcess,
    inflight: u32,
    published: AtomicU64,
    lost: AtomicU64,
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Stage {
    async fn start(args: &Args, dir: &Path) -> Result<Self> {
        let (server, nats_url, _) = nats_server(dir).await?;
        let fast = SinkProcess::start(dir, "fast", &[]).await?;
        let slow = SinkProcess::start(dir, "slow", &["--delay", &format!("{SLOW_DELAY_MS}ms")]).await?;
        let hanging = SinkProcess::start(dir, "hanging", &["--hang"]).await?;
        let config = NatsConfig::for_url(&nats_url).map_err(|e| failed("NATS", &e))?;
        let nats = Nats::connect(&config, "agentforge-bench").await.map_err(|e| failed("NATS", &e))?;
        let file = dir.join("endpoints.toml");
        write(&file, &endpoints(&fast, &slow, None, args.inflight))?;
        let ready = dir.join("broadcaster.json");
        let _ = std::fs::remove_file(&ready);
        let mut command = sibling("agentforge-broadcaster")?;
        for (key, value) in [
            ("ENV", "dev"),
            ("NATS_URL", &nats_url),
            ("HTTP_PORT", "0"),
            ("METRICS_PORT", "0"),
            ("LOG_LEVEL", "warn"),
            ("EGRESS_ALLOW", "127.0.0.1"),
            ("EVENTS_MAX_BYTES", "4GiB"),
            ("BROADCASTER_RELOAD_INTERVAL", "100ms"),
        ] {
            command.env(key, value);
        }
        command.env("BROADCASTER_ENDPOINTS_FILE", &file).env("READY_FILE", &ready);
        let log = dir.join("broadcaster.log");
        let broadcaster = spawn(&command, &log).await?;
        let written = until_written(&ready, "broadcaster", &log).await?;
        let http = written["broadcaster"]["http"].as_str().unwrap_or_default().to_owned();
        let (published, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        let dir = dir.to_owned();
        let inflight = args.inflight;
        let this = Self {
            dir,
            _server: server,
            nats_url,
            nats,
            broadcaster,
            http,
            fast,
            slow,
            hanging,
            inflight,
            published,
            lost,
        };
        this.until_active(2).await?;
        this.floor_consumer().await?;
        Ok(this)
    }

    fn broadcaster_pid(&self) -> i32 {
        i32::try_from(self.broadcaster.pid).unwrap_or_default()
    }

    async fn until_active(&self, endpoints: usize) -> Result {
        let end = Instant::now() + STALL_MAX;
        loop {
            let page = rest::page(&self.http, "/v1/endpoints").await.unwrap_or_default();
            if page.matches("\"active\"").count() == endpoints {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Failure::new(format!("the endpoints are not at work: {page}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn floor_consumer(&self) -> Result {
        let stream = self.nats.jetstream().get_stream("events").await.map_err(|e| failed("floor", &e))?;
        let consumer = pull::Config {
            durable_name: Some("floor".to_owned()),
            filter_subject: FAST.to_owned(),
            deliver_policy: DeliverPolicy::New,
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: 8192,
            ..pull::Config::default()
        };
        stream.create_consumer(consumer).await.map(drop).map_err(|e| failed("floor", &e))
    }

    async fn publish(&self, subject: &'static str, count: u32) -> Result {
        let publisher = Publisher::with_limits(self.nats.clone(), 1024, Duration::from_secs(30));
        let first = self.published.fetch_add(u64::from(count), Ordering::Relaxed);
        let mut acks = stream::iter(first..first + u64::from(count))
            .map(|n| {
                let publisher = publisher.clone();
                async move {
                    publisher
                        .send(subject, MsgId::outbox(&format!("bench-{n}")), HeaderMap::new(), event(n))
                        .await?
                        .await
                }
            })
            .buffer_unordered(1024);
        while let Some(ack) = acks.next().await {
            ack.map_err(|e| failed("publish", &e))?;
        }
        Ok(())
    }

    async fn round(&self, args: &Args, _n: u32) -> Result<Round> {
        let count = u64::from(args.count);
        self.broadcaster.signal(Signal::STOP);
        self.publish(FAST, args.count).await?;
        self.fast.reset().await?;
        let floor_per_s =
            floor::measure(self.nats_url.clone(), self.fast.url.clone(), args.inflight as usize, count).await?;
        self.fast.reset().await?;
        let begun = now();
        self.broadcaster.signal(Signal::CONT);
        let stats = self.fast.until(count).await?;
        self.lost.fetch_add(count - stats.ids.min(count), Ordering::Relaxed);
        Ok(Round { floor_per_s, events_per_s: count as f64 / (stats.last_at - begun.as_secs_f64()) })
    }

    async fn slow(&self, args: &Args) -> Result<Bounded> {
        let possible_per_s = f64::from(args.inflight) * 1000.0 / SLOW_DELAY_MS as f64;
        // About three seconds.
        let count = (possible_per_s * 3.0) as u32;
        self.slow.reset().await?;
        self.broadcaster.signal(Signal::STOP);
        self.publish(SLOW, count).await?;
        let begun = now();
        self.broadcaster.signal(Signal::CONT);
        let stats = self.slow.until(u64::from(count)).await?;
        let events_per_s = f64::from(count) / (stats.last_at - begun.as_secs_f64());
        Ok(Bounded { delay_ms: SLOW_DELAY_MS, events_per_s, possible_per_s, most_at_once: stats.most_at_once })
    }

    async fn latency(&self, args: &Args) -> Result<Latency> {
        self.at_rate(1).await?;
        self.fast.reset().await?;
        let sent = self.at_rate(args.seconds).await?;
        self.fast.until(sent).await?;
        let delays = self.fast.stats("GET", "/delays").await?.delays_ms;
        let at = |q: f64| delays[((delays.len().max(1) - 1) as f64 * q).round() as usize];
        if delays.is_empty() {
            Err(Failure::new("no event arrived"))
        } else {
            Ok(Latency { events: delays.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) })
        }
    }

    /// Publishes at an even rate; how many.
    async fn at_rate(&self, seconds: u32) -> Result<u64> {
        let count = RATE * u64::from(seconds);
        let publisher = Publisher::with_limits(self.nats.clone(), 1024, Duration::from_secs(30));
        let mut tick = interval(Duration::from_nanos(1_000_000_000 / RATE));
        let mut last = None;
        for _ in 0..count {
            tick.tick().await;
            let n = self.published.fetch_add(1, Ordering::Relaxed);
            let id = MsgId::outbox(&format!("bench-{n}"));
            last = Some(publisher.send(FAST, id, HeaderMap::new(), event(n)).await.map_err(|e| failed("publish", &e))?);
        }
        if let Some(last) = last {
            last.await.map_err(|e| failed("publish", &e))?;
        }
        Ok(count)
    }

    async fn isolation(&self, args: &Args, pairs: u32) -> Result<Isolation> {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        let file = self.dir.join("endpoints.toml");
        for _ in 0..pairs {
            write(&file, &endpoints(&self.fast, &self.slow, None, self.inflight))?;
            self.until_active(2).await?;
            alone.push(self.latency(args).await?.p99_ms);
            write(&file, &endpoints(&self.fast, &self.slow, Some(&self.hanging), self.inflight))?;
            self.until_active(4).await?;
            beside.push(self.latency(args).await?.p99_ms);
        }
        let ratio = median(beside.iter().copied()) / median(alone.iter().copied());
        Ok(Isolation { alone_p99_ms: alone, beside_p99_ms: beside, ratio })
    }
}

fn write(file: &Path, text: &str) -> Result {
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, file))
        .map_err(|e| failed("endpoints", &e))
}

fn endpoints(fast: &SinkProcess, slow: &SinkProcess, hanging: Option<&SinkProcess>, inflight: u32) -> String {
    let one = |name: &str, url: &str, subject: &str| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\nurl = \"{url}/\"\nsubjects = [\"{subject}\"]\nsecret = \"{SECRET}\"\n\
             format = \"raw\"\nconcurrency = {inflight}\n\n"
        )
    };
    let mut text = one("fast", &fast.url, FAST) + &one("slow", &slow.url, SLOW);
    if let Some(hanging) = hanging {
        text += &one("hanging", &hanging.url, FAST);
        // Port 1 has no listener.
        text += &one("dead", "http://127.0.0.1:1", FAST);
    }
    text
}

/// A flat event of a usual size that contains its time of publishing.
fn event(n: u64) -> Bytes {
    let at = now().as_nanos();
    format!(
        r#"{{"id":"{n}","text":"an event of the benchmark, about as long as people write","status":"open","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z","action":"created","at":{at}}}"#
    )
    .into()
}

impl Report {
    fn print(&self, json: bool) -> Result {
        if json {
            return output::Output { json }.document(self);
        }
        let Self { count, inflight, latency, slow, .. } = self;
        anstream::println!("{}", self.machine);
        anstream::println!(
            "{count} events, {inflight} in flight: {:.0}/s, floor {:.0}/s, ratio {:.2}; {} lost; {} MiB",
            self.events_per_s,
            self.floor_per_s,
            self.ratio_to_floor,
            self.lost,
            self.rss_mib
        );
        anstream::println!(
            "{} ms sink: {:.0}/s of {:.0}/s that {inflight} in flight allow, {} at once",
            slow.delay_ms,
            slow.events_per_s,
            slow.possible_per_s,
            slow.most_at_once
        );
        anstream::println!(
            "event to answer at {RATE}/s: p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms of {}",
            latency.p50_ms,
            latency.p99_ms,
            latency.max_ms,
            latency.events
        );
        if let Some(Isolation { alone_p99_ms, beside_p99_ms, ratio }) = &self.isolation {
            anstream::println!(
                "with a dead and a hanging endpoint: p99 {beside_p99_ms:.2?} ms, without {alone_p99_ms:.2?} ms, ratio {ratio:.2}"
            );
        }
        Ok(())
    }
}

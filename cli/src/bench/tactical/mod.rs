//! `agentforge bench tactical`: events to many clients beside writing the same frames to as many sockets.
//!
//! Starts a NATS server, the tactical API and the clients as processes of their own. Floor and product take
//! turns in the same run; processor time is what the kernel accounts to each process.

pub mod floor;
pub mod load;
mod report;
mod stalled;

use super::{machine, process};
use crate::error::{Failure, Result};
use agentforge_jetstream::subjects;
use async_nats::Client;
use load::{DIGITS, MARK, now_us};
use report::{Idle, Report, Round, Run, Side};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};

/// Markers that the events are states of; each keeps a hundred on the stream.
const MARKERS: u64 = 1000;
/// How long clients may take for what is left when all is published.
const TAIL: Duration = Duration::from_secs(20);
/// Before memory is looked at, so that connecting is over.
const SETTLE: Duration = Duration::from_secs(2);

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Clients, one run for each
    #[arg(long, value_delimiter = ',', default_values_t = [500, 2000], value_name = "N,N")]
    pub clients: Vec<usize>,
    /// Events a second, one run for each
    #[arg(long, value_delimiter = ',', default_values_t = [5, 50, 100], value_name = "N,N")]
    pub rates: Vec<u32>,
    /// Streams
    #[arg(long, value_delimiter = ',', default_values_t = ["sse".to_owned(), "ws".to_owned()], value_parser = ["sse", "ws"])]
    pub channels: Vec<String>,
    /// Seconds of publishing in each round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Times that floor and product take turns in each run; the medians count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Bytes of a published event
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(128..=65_536))]
    pub bytes: u32,
    /// Idle clients whose memory is looked at; 0 leaves it out
    #[arg(long, default_value_t = 10_000)]
    pub idle: usize,
    /// Clients that read nothing, beside which others are measured; 0 leaves it out
    #[arg(long, default_value_t = 20)]
    pub stalled: usize,
    /// Times that others are measured without and with them, in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub pairs: u32,
    /// Where the NATS server keeps its data; removed afterwards unless it existed
    #[arg(long, value_name = "DIR", default_value = ".agentforge-bench-tactical")]
    pub data_dir: PathBuf,
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
    let (_nats, url, _) = process::nats_server(dir).await?;
    let bench = Bench { dir: dir.to_owned(), url, bytes: args.bytes as usize };
    let mut runs = Vec::new();
    for channel in &args.channels {
        for clients in &args.clients {
            for rate in &args.rates {
                let run = bench.run(channel, *clients, *rate, args).await?;
                if !json {
                    anstream::eprintln!("{run}");
                }
                runs.push(run);
            }
        }
    }
    let mut idle = Vec::new();
    for channel in args.channels.iter().filter(|_| args.idle > 0) {
        let one = bench.idle(channel, args.idle).await?;
        if !json {
            anstream::eprintln!("{one}");
        }
        idle.push(one);
    }
    let mut stalled = Vec::new();
    for channel in args.channels.iter().filter(|_| args.stalled > 0) {
        let one = stalled::measure(&bench, channel, args.stalled, args.pairs, args.seconds).await?;
        if !json {
            anstream::eprintln!("{one}");
        }
        stalled.push(one);
    }
    Ok(Report { seconds: args.seconds, rounds: args.rounds, event_bytes: args.bytes, runs, idle, stalled, machine })
}

#[derive(Clone)]
struct Bench {
    dir: PathBuf,
    url: String,
    bytes: usize,
}

/// The tactical API as a process.
struct Api {
    child: Child,
    address: String,
}

impl Api {
    fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }
}

impl Bench {
    async fn api(&self) -> Result<Api> {
        let ready = self.dir.join("tactical.json");
        let _ = std::fs::remove_file(&ready);
        let mut command = process::sibling("agentforge-tactical-api")?;
        command.env("READY_FILE", &ready).env("NATS_URL", &self.url).env("ENV", "dev").env("LOG_LEVEL", "warn");
        command.env("HTTP_PORT", "0").env("METRICS_PORT", "0").env("TACTICAL_STREAM_MAX_CLIENTS", "100000");
        let log = self.dir.join("tactical.log");
        let child = process::spawn(&mut command, &log)?;
        let written = process::until_written(&ready, "tactical-api", &log).await?;
        let http = written["tactical-api"]["http"].as_str().unwrap_or_default();
        let api = Api { child, address: http.trim_start_matches("http://").to_owned() };
        let end = Instant::now() + Duration::from_secs(60);
        while crate::dev::probe::is_ready(http).await.is_err() {
            if Instant::now() > end {
                return Err(Failure::new("the tactical API is not ready; look at tactical.log"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(api)
    }

    async fn nats(&self) -> Result<Client> {
        async_nats::connect(&self.url).await.map_err(|e| Failure::new(format!("cannot reach NATS: {e}")))
    }

    /// Publishes so many events a second, in turn for so many markers.
    async fn publish(&self, events: u64, rate: u32, markers: u64) -> Result {
        let client = self.nats().await?;
        let begun = Instant::now();
        for n in 0..events {
            let due = begun + Duration::from_secs_f64(n as f64 / f64::from(rate));
            sleep(due.saturating_duration_since(Instant::now())).await;
            client.publish(subject(n % markers), self.event().into()).await.map_err(anyhow::Error::from)?;
            client.flush().await.map_err(anyhow::Error::from)?;
        }
        Ok(())
    }

    /// A marker of the wanted size whose title is the moment of its making.
    fn event(&self) -> String {
        let body = |pad: usize| {
            let (stamp, pad) = (now_us(), "x".repeat(pad));
            format!(
                r#"{{"title":"@{stamp:0DIGITS$}","severity":"high","coordinates":[13.3777,52.5163],"description":"{pad}"}}"#
            )
        };
        body(self.bytes.saturating_sub(body(0).len()))
    }

    async fn run(&self, channel: &str, clients: usize, rate: u32, args: &Args) -> Result<Run> {
        let events = u64::from(rate) * args.seconds;
        let api = self.api().await?;
        let frame = self.frame(&api, channel).await?;
        let mut rounds = Vec::new();
        for n in 0..args.rounds {
            // Each goes first as often as the other.
            let (floor, product);
            if n % 2 == 0 {
                floor = self.floor(channel, &frame, clients, rate, events).await?;
                product = self.product(&api, channel, clients, rate, events).await?;
            } else {
                product = self.product(&api, channel, clients, rate, events).await?;
                floor = self.floor(channel, &frame, clients, rate, events).await?;
            }
            rounds.push(Round { floor, product });
        }
        Ok(Run::of(channel, clients, rate, events * clients as u64, rounds))
    }

    /// One frame, as the product writes it.
    async fn frame(&self, api: &Api, channel: &str) -> Result<PathBuf> {
        let failed = |e: std::io::Error| Failure::new(format!("cannot take a frame: {e}"));
        let mut stream = TcpStream::connect(&api.address).await.map_err(failed)?;
        let is_ws = channel == "ws";
        let request = load::request(&api.address, is_ws);
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut head = vec![0; 4096];
        let n = stream.read(&mut head).await.map_err(failed)?;
        let status: &[u8] = if is_ws { b"HTTP/1.1 101" } else { b"HTTP/1.1 200" };
        if !head[..n].starts_with(status) {
            return Err(Failure::new("the tactical API did not let a client in"));
        }
        let client = self.nats().await?;
        client.publish(subject(0), self.event().into()).await.map_err(anyhow::Error::from)?;
        client.flush().await.map_err(anyhow::Error::from)?;
        let mut frame = Vec::new();
        let mut buffer = vec![0; 128 << 10];
        while memchr::memmem::find(&frame, MARK).is_none() {
            let n = stream.read(&mut buffer).await.map_err(failed)?;
            frame.extend_from_slice(&buffer[..n]);
            // What is left of the head may have come behind it.
            if let Some(start) = memchr::memmem::find(&frame, b"event: ").filter(|_| !is_ws) {
                frame.drain(..start);
            }
        }
        let path = self.dir.join(format!("frame-{channel}"));
        std::fs::write(&path, frame).map_err(failed)?;
        Ok(path)
    }

    async fn load(&self, address: &str, channel: &str, clients: usize, expect: u64, within: u64) -> Result<Load> {
        let (ready, report) = (self.dir.join("load-ready.json"), self.dir.join("load-report.json"));
        let _ = (std::fs::remove_file(&ready), std::fs::remove_file(&report));
        let mut command = own("bench-load")?;
        command.args(["--address", address, "--clients", &clients.to_string(), "--expect", &expect.to_string()]);
        command.args(["--within", &within.to_string()]).arg("--ready").arg(&ready).arg("--report").arg(&report);
        if channel == "ws" {
            command.arg("--ws");
        }
        let log = self.dir.join("load.log");
        let child = process::spawn(&mut command, &log)?;
        process::until_written(&ready, "the load client", &log).await?;
        Ok(Load { _child: child, report, log })
    }

    async fn floor(&self, channel: &str, frame: &Path, clients: usize, rate: u32, events: u64) -> Result<Side> {
        let path = |name: &str| self.dir.join(name);
        for name in ["floor-listening.json", "floor-begin", "floor-report.json"] {
            let _ = std::fs::remove_file(path(name));
        }
        let mut command = own("bench-floor")?;
        command.arg("--frame").arg(frame).args(["--clients", &clients.to_string(), "--rate", &rate.to_string()]);
        command.args(["--events", &events.to_string()]).arg("--listening").arg(path("floor-listening.json"));
        command.arg("--begin").arg(path("floor-begin")).arg("--report").arg(path("floor-report.json"));
        let _child = process::spawn(&mut command, &path("floor.log"))?;
        let address = process::until_written(&path("floor-listening.json"), "the floor", &path("floor.log")).await?;
        let within = events / u64::from(rate) + TAIL.as_secs();
        let address = address.as_str().unwrap_or_default().to_owned();
        let load = self.load(&address, channel, clients, events, within).await?;
        std::fs::write(path("floor-begin"), "").map_err(anyhow::Error::from)?;
        let load = load.finish().await?;
        let cpu = process::until_written(&path("floor-report.json"), "the floor's report", &path("floor.log")).await?;
        Ok(Side::of(&load, Duration::from_secs_f64(cpu.as_f64().unwrap_or_default())))
    }

    async fn product(&self, api: &Api, channel: &str, clients: usize, rate: u32, events: u64) -> Result<Side> {
        let within = events / u64::from(rate) + TAIL.as_secs();
        let load = self.load(&api.address, channel, clients, events, within).await?;
        let before = cpu(api.pid());
        self.publish(events, rate, MARKERS).await?;
        let load = load.finish().await?;
        Ok(Side::of(&load, cpu(api.pid()).saturating_sub(before)))
    }

    async fn idle(&self, channel: &str, clients: usize) -> Result<Idle> {
        let api = self.api().await?;
        // What the first clients make the process take once is not what each of them costs.
        drop(self.load(&api.address, channel, 100, 1, 3600).await?);
        sleep(SETTLE).await;
        let before = resident(api.pid());
        let load = self.load(&api.address, channel, clients, 1, 3600).await?;
        sleep(SETTLE).await;
        let bytes = resident(api.pid()).saturating_sub(before);
        drop(load);
        Ok(Idle { channel: channel.to_owned(), clients, bytes_per_client: bytes / clients.max(1) as u64 })
    }
}

/// Clients that are open.
struct Load {
    _child: Child,
    report: PathBuf,
    log: PathBuf,
}

impl Load {
    async fn finish(self) -> Result<load::Report> {
        let report = process::until_written(&self.report, "the load client's report", &self.log).await?;
        serde_json::from_value(report).map_err(|e| Failure::new(format!("the load client's report: {e}")))
    }
}

fn subject(n: u64) -> String {
    subjects::tactical_marker("bench", &format!("m{n}"))
}

/// This program as one of its parts.
fn own(part: &str) -> Result<Command> {
    let here = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
    let mut command = Command::new(here);
    command.arg(part);
    Ok(command)
}

/// Processor time of all threads of a process so far.
fn cpu(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| time_of(&thread.path().join("schedstat"))).sum()
}

/// Processor time of the calling thread: the kernel forgets a thread's when it ends.
fn cpu_of_this_thread() -> Duration {
    time_of(Path::new("/proc/thread-self/schedstat")).unwrap_or_default()
}

fn time_of(schedstat: &Path) -> Option<Duration> {
    let stat = std::fs::read_to_string(schedstat).ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Resident memory of a process, bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

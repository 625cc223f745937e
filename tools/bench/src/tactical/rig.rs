//! What both sides run on: the server, the tactical API, the clients and the floor, as processes of their own.

use super::{
    figures::{Idle, Round, Run, Side},
    load::{self, DIGITS, MARK, now_us},
    usage::{cpu, resident},
};
use crate::process;
use agentforge_jetstream::subjects;
use agentforge_stack::child::Child;
use agentforge_terminal::{Failure, Result};
use async_nats::Client;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// Markers that the events are states of; each keeps a hundred on the stream.
const MARKERS: u64 = 1000;
/// How long clients may take for what is left when all is published.
pub const TAIL: Duration = Duration::from_secs(20);
/// Before memory is looked at, so that connecting is over.
const SETTLE: Duration = Duration::from_secs(2);

/// A NATS server, and a folder for the other processes.
#[derive(Clone)]
pub struct Bench {
    /// Where everything writes.
    pub dir: PathBuf,
    /// The NATS server.
    pub url: String,
    /// Of a published event.
    pub bytes: usize,
}

/// The tactical API as a process.
pub struct Api {
    child: Child,
    /// Host and port.
    pub address: String,
}

impl Api {
    /// The id of the process whose CPU time and memory are read.
    pub fn pid(&self) -> u32 {
        self.child.pid
    }
}

impl Bench {
    /// Starts a tactical API.
    pub async fn api(&self) -> Result<Api> {
        let ready = self.dir.join("tactical.json");
        let _ = std::fs::remove_file(&ready);
        let mut command = process::sibling("agentforge-tactical-api")?;
        command.env("READY_FILE", &ready).env("NATS_URL", &self.url).env("ENV", "dev").env("LOG_LEVEL", "warn");
        command.env("HTTP_PORT", "0").env("METRICS_PORT", "0").env("TACTICAL_STREAM_MAX_CLIENTS", "100000");
        let log = self.dir.join("tactical.log");
        let child = process::spawn(&command, &log).await?;
        let written = process::until_written(&ready, "tactical-api", &log).await?;
        let http = written["tactical-api"]["http"].as_str().unwrap_or_default();
        let api = Api { child, address: http.trim_start_matches("http://").to_owned() };
        let end = Instant::now() + Duration::from_secs(60);
        while agentforge_client::rest::is_ready(http).await.is_err() {
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

    /// Publishes this many events per second, in turn for this many markers.
    pub async fn publish(&self, events: u64, rate: u32, markers: u64) -> Result {
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

    /// Floor and product in turns.
    pub async fn run(&self, channel: &str, clients: usize, rate: u32, seconds: u64, rounds_wanted: u32) -> Result<Run> {
        let events = u64::from(rate) * seconds;
        let api = self.api().await?;
        let frame = self.frame(&api, channel).await?;
        let mut rounds = Vec::new();
        for n in 0..rounds_wanted {
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

    /// Opens so many clients.
    pub async fn load(&self, address: &str, channel: &str, clients: usize, expect: u64, within: u64) -> Result<Load> {
        let (ready, report) = (self.dir.join("load-ready.json"), self.dir.join("load-report.json"));
        let _ = (std::fs::remove_file(&ready), std::fs::remove_file(&report));
        let mut command = own("load")?;
        command.args(["--address", address, "--clients", &clients.to_string(), "--expect", &expect.to_string()]);
        command.args(["--within", &within.to_string()]).arg("--ready").arg(&ready).arg("--report").arg(&report);
        if channel == "ws" {
            command.arg("--ws");
        }
        let log = self.dir.join("load.log");
        let child = process::spawn(&command, &log).await?;
        process::until_written(&ready, "the load client", &log).await?;
        Ok(Load { _child: child, report, log })
    }

    async fn floor(&self, channel: &str, frame: &Path, clients: usize, rate: u32, events: u64) -> Result<Side> {
        let path = |name: &str| self.dir.join(name);
        for name in ["floor-listening.json", "floor-begin", "floor-report.json"] {
            let _ = std::fs::remove_file(path(name));
        }
        let mut command = own("floor")?;
        command.arg("--frame").arg(frame).args(["--clients", &clients.to_string(), "--rate", &rate.to_string()]);
        command.args(["--events", &events.to_string()]).arg("--listening").arg(path("floor-listening.json"));
        command.arg("--begin").arg(path("floor-begin")).arg("--report").arg(path("floor-report.json"));
        let _child = process::spawn(&command, &path("floor.log")).await?;
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

    /// Memory of clients that wait.
    pub async fn idle(&self, channel: &str, clients: usize) -> Result<Idle> {
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
pub struct Load {
    _child: Child,
    report: PathBuf,
    log: PathBuf,
}

impl Load {
    /// Waits for what the clients report.
    pub async fn finish(self) -> Result<load::Report> {
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

//! What clients that read nothing do to those that read: the same load without and with them, in turns.
//!
//! They are open before anything is published, so that they are stalled for all of the time that is measured:
//! first the kernel's buffers fill, then their own, then their states are passed over again and again. That this
//! happened is asked of the service; without it nothing was measured.

use super::{
    load,
    rig::{Api, Bench, TAIL},
    usage::resident,
};
use crate::{report::median, stack};
use agentforge_terminal::{Failure, Result};
use serde::Serialize;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

/// Clients that read.
const LIVELY: usize = 300;
/// Events a second.
const RATE: u32 = 100;
/// Events large enough to fill what waits for a client within seconds.
const BYTES: usize = 1000;
/// Few markers, so that what waits for a stalled client can always give way to something newer.
const MARKERS: u64 = 20;
/// Events that fill all buffers of the stalled before anything is measured.
const FILLING: u64 = 1500;
/// What the kernel is to hold of a client that reads nothing, bytes.
const SOCKET_BYTES: u32 = 4096;

/// How those who read fare in one round.
#[derive(Clone, Debug, Serialize)]
struct Round {
    delivered: u64,
    p50_ms: f64,
    p99_ms: f64,
    /// States that stalled clients were not given, while this was measured.
    passed_over: u64,
    /// Resident memory of the service at the end.
    server_bytes: u64,
}

/// Rounds without and with stalled clients.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    channel: String,
    clients: usize,
    rate: u32,
    event_bytes: usize,
    stalled: usize,
    offered: u64,
    alone: Vec<Round>,
    beside: Vec<Round>,
    p99_ratio: f64,
}

/// Measures `pairs` rounds of each, in turns.
pub async fn measure(bench: &Bench, channel: &str, stalled: usize, pairs: u32, seconds: u64) -> Result<Beside> {
    let bench = Bench { bytes: BYTES, ..bench.clone() };
    let api = bench.api().await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Each goes first as often as the other.
        for is_first in [true, false] {
            if is_first == (pair % 2 == 0) {
                alone.push(round(&bench, &api, channel, 0, seconds).await?)
            } else {
                beside.push(round(&bench, &api, channel, stalled, seconds).await?)
            }
        }
    }
    if beside.iter().any(|round| round.passed_over == 0) {
        let why = "the stalled clients were not stalled: nothing was passed over for them";
        return Err(Failure::new(why).hint("what waits for a client fills in about 4 s: --seconds 5"));
    }
    let p99 = |rounds: &[Round]| median(rounds.iter().map(|round| round.p99_ms));
    Ok(Beside {
        channel: channel.to_owned(),
        clients: LIVELY,
        rate: RATE,
        event_bytes: BYTES,
        stalled,
        offered: u64::from(RATE) * seconds * LIVELY as u64,
        p99_ratio: p99(&beside) / p99(&alone),
        alone,
        beside,
    })
}

async fn round(bench: &Bench, api: &Api, channel: &str, stalled: usize, seconds: u64) -> Result<Round> {
    let mut held = Vec::with_capacity(stalled);
    for _ in 0..stalled {
        held.push(stall(&api.address, channel).await.map_err(|e| Failure::new(format!("a stalled client: {e}")))?);
    }
    bench.publish(FILLING, u32::MAX, MARKERS).await?;
    let events = u64::from(RATE) * seconds;
    let load = bench.load(&api.address, channel, LIVELY, events, seconds + TAIL.as_secs()).await?;
    let passed = || stack::metric(&api.address, "tactical_events_conflated_total");
    let before = passed().await?;
    bench.publish(events, RATE, MARKERS).await?;
    let report = load.finish().await?;
    let passed_over = passed().await?.saturating_sub(before);
    drop(held);
    Ok(Round {
        delivered: report.delivered,
        p50_ms: report.p50_ms,
        p99_ms: report.p99_ms,
        passed_over,
        server_bytes: resident(api.pid()),
    })
}

/// A client that asks and never reads.
async fn stall(address: &str, channel: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    let mut stream = socket.connect(address.parse().map_err(std::io::Error::other)?).await?;
    stream.write_all(load::request(address, channel == "ws").as_bytes()).await?;
    Ok(stream)
}

impl std::fmt::Display for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |rounds: &[Round], of: fn(&Round) -> f64| {
            rounds.iter().map(|round| format!("{:.1}", of(round))).collect::<Vec<_>>().join(", ")
        };
        let all = self.alone.iter().chain(&self.beside);
        let lost: u64 = all.clone().map(|round| self.offered.saturating_sub(round.delivered)).sum();
        let passed: u64 = self.beside.iter().map(|round| round.passed_over).sum();
        let mib = all.map(|round| round.server_bytes >> 20).max().unwrap_or_default();
        write!(
            f,
            "{:<3} {} clients × {}/s of {} bytes: p50 {} ms, p99 {} ms; with {} stalled ones p50 {} ms, p99 {} ms; \
             ratio p99 {:.2} (medians); {lost} not delivered, {passed} conflated for the stalled, server {mib} MiB",
            self.channel,
            self.clients,
            self.rate,
            self.event_bytes,
            list(&self.alone, |round| round.p50_ms),
            list(&self.alone, |round| round.p99_ms),
            self.stalled,
            list(&self.beside, |round| round.p50_ms),
            list(&self.beside, |round| round.p99_ms),
            self.p99_ratio,
        )
    }
}

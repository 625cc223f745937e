//! What `bench tactical` measures: one side, a round, a run, and their medians.

use super::load;
use crate::report::median;
use serde::Serialize;
use std::{fmt, time::Duration};

/// One side of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Events, all clients together.
    pub delivered: u64,
    /// From the first to the last.
    pub delivered_per_s: f64,
    /// From publishing to the client, milliseconds.
    pub p50_ms: f64,
    /// The same, of 99 in 100.
    pub p99_ms: f64,
    /// Processor time of the server, microseconds.
    pub server_cpu_us_per_event: f64,
    /// Processor time of the clients, microseconds.
    pub client_cpu_us_per_event: f64,
}

/// Both sides, one after the other.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Writing the same frames.
    pub floor: Side,
    /// The tactical API.
    pub product: Side,
}

/// Rounds of the same load, and their medians.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// `sse` or `ws`.
    pub channel: String,
    /// How many clients were connected.
    pub clients: usize,
    /// Events a second.
    pub rate: u32,
    /// Events that all clients together are to get, in all rounds.
    pub offered: u64,
    /// Writing the same frames: medians, and what was delivered in all rounds.
    pub floor: Side,
    /// The tactical API, likewise.
    pub product: Side,
    /// Product to floor, of the medians.
    pub cpu_ratio: f64,
    /// Product to floor, of the medians.
    pub p99_ratio: f64,
    /// What they are the medians of.
    pub rounds: Vec<Round>,
}

/// What clients cost that get nothing but heartbeats.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// `sse` or `ws`.
    pub channel: String,
    /// How many clients were connected.
    pub clients: usize,
    /// Resident memory of the server.
    pub bytes_per_client: u64,
}

impl Side {
    /// From what the clients saw and what the server used of the processors.
    pub fn of(load: &load::Report, server: Duration) -> Self {
        let events = load.delivered.max(1) as f64;
        Self {
            delivered: load.delivered,
            delivered_per_s: events / load.seconds.max(0.001),
            p50_ms: load.p50_ms,
            p99_ms: load.p99_ms,
            server_cpu_us_per_event: server.as_secs_f64() * 1e6 / events,
            client_cpu_us_per_event: load.cpu_s * 1e6 / events,
        }
    }

    /// The medians of `sides`, and the sum of what was delivered.
    fn middle<'a>(sides: impl Iterator<Item = &'a Side> + Clone) -> Self {
        let of = |value: fn(&Side) -> f64| median(sides.clone().map(value));
        Self {
            delivered: sides.clone().map(|side| side.delivered).sum(),
            delivered_per_s: of(|side| side.delivered_per_s),
            p50_ms: of(|side| side.p50_ms),
            p99_ms: of(|side| side.p99_ms),
            server_cpu_us_per_event: of(|side| side.server_cpu_us_per_event),
            client_cpu_us_per_event: of(|side| side.client_cpu_us_per_event),
        }
    }
}

impl Run {
    /// A run of `rounds`, each of which offers `offered` events.
    pub fn of(channel: &str, clients: usize, rate: u32, offered: u64, rounds: Vec<Round>) -> Self {
        let floor = Side::middle(rounds.iter().map(|round| &round.floor));
        let product = Side::middle(rounds.iter().map(|round| &round.product));
        Self {
            channel: channel.to_owned(),
            clients,
            rate,
            offered: offered * rounds.len() as u64,
            cpu_ratio: product.server_cpu_us_per_event / floor.server_cpu_us_per_event,
            p99_ratio: product.p99_ms / floor.p99_ms,
            floor,
            product,
            rounds,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7.0}/s, p50 {:>6.1} ms, p99 {:>6.1} ms, CPU {:>5.2} µs",
            self.delivered_per_s, self.p50_ms, self.p99_ms, self.server_cpu_us_per_event
        )
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.offered.saturating_sub(self.product.delivered);
        let ratios = self.rounds.iter().map(|round| round.product.p99_ms / round.floor.p99_ms);
        let (low, high) = ratios.fold((f64::MAX, 0.0_f64), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
        write!(
            f,
            "{:<3} {:>5} clients × {:>3}/s: floor {}; product {}; ratio CPU {:.2}, p99 {:.2} ({low:.2} to {high:.2}); {}",
            self.channel,
            self.clients,
            self.rate,
            self.floor,
            self.product,
            self.cpu_ratio,
            self.p99_ratio,
            if lost == 0 { "all delivered".to_owned() } else { format!("{lost} of {} NOT delivered", self.offered) }
        )
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<3} {:>5} idle clients: {} bytes each", self.channel, self.clients, self.bytes_per_client)
    }
}

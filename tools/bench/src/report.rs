//! What was measured, for people and for scripts.

use crate::{check::Delivery, latency::Latency, machine::Machine, stack::Memory};
use agentforge_terminal::{Failure, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Floor and product, one after the other.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Four raw hops.
    pub floor_per_s: f64,
    /// Jobs end to end.
    pub jobs_per_s: f64,
    /// Processor time per job while they ran, microseconds, of each process; `submitter` is this program.
    pub cpu_us: BTreeMap<String, f64>,
}

impl Round {
    fn cpu_us_per_job(&self) -> f64 {
        self.cpu_us.values().sum()
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { floor_per_s, jobs_per_s, cpu_us } = self;
        write!(f, "floor {floor_per_s:.0}/s, jobs {jobs_per_s:.0}/s, ratio {:.2}", jobs_per_s / floor_per_s)?;
        let parts: Vec<_> = cpu_us.iter().map(|(name, us)| format!("{name} {us:.0}")).collect();
        write!(f, "; CPU per job {:.0} µs ({})", self.cpu_us_per_job(), parts.join(", "))
    }
}

/// A backlog and how fast it went.
#[derive(Clone, Debug, Serialize)]
pub struct Drain {
    /// Jobs that were queued before workers started.
    pub queued: u64,
    /// Jobs accepted per second while it was queued, one figure per round.
    pub enqueued_per_s: Vec<f64>,
    /// Jobs per second, one figure per round.
    pub per_s: Vec<f64>,
}

/// Everything of a run.
pub struct Report {
    /// The machine that the figures are of.
    pub machine: Machine,
    /// Jobs of a round.
    pub count: u64,
    /// The rounds in the order in which they ran.
    pub rounds: Vec<Round>,
    /// At a steady rate.
    pub latency: Option<Latency>,
    /// Backlogs of different sizes, and how fast each was worked off.
    pub drains: Vec<Drain>,
    /// Lost and repeated jobs, over all rounds.
    pub delivery: Delivery,
    /// Resident memory at the start and after each step.
    pub memory: Vec<Memory>,
    /// The orchestrator's JOB_EVENTS: which events were published during the run.
    pub events: String,
}

/// The middle of them; 0 of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut v: Vec<f64> = values.collect();
    v.sort_by(f64::total_cmp);
    match v.len() {
        0 => 0.0,
        n if n % 2 == 1 => v[n / 2],
        n => f64::midpoint(v[n / 2 - 1], v[n / 2]),
    }
}

impl Report {
    /// Prints the report, as JSON or as tables.
    pub fn print(&self, json: bool) -> Result {
        let jobs_per_s = median(self.rounds.iter().map(|r| r.jobs_per_s));
        let floor_per_s = median(self.rounds.iter().map(|r| r.floor_per_s));
        let ratio = median(self.rounds.iter().map(|r| r.jobs_per_s / r.floor_per_s));
        let cpu_us_per_job = median(self.rounds.iter().map(Round::cpu_us_per_job));
        if json {
            let document = serde_json::json!({
                "jobs_per_s": jobs_per_s,
                "floor_per_s": floor_per_s,
                "ratio_to_floor": ratio,
                "cpu_us_per_job": cpu_us_per_job,
                "p50_ms": self.latency.as_ref().map(|l| l.p50_ms),
                "p99_ms": self.latency.as_ref().map(|l| l.p99_ms),
                "lost": self.delivery.lost,
                "duplicated": self.delivery.duplicated,
                "count": self.count,
                "events": self.events,
                "machine": self.machine,
                "rounds": self.rounds,
                "latency": self.latency,
                "drains": self.drains,
                "delivery": self.delivery,
                "memory_mib": self.memory,
            });
            let text = serde_json::to_string(&document).map_err(|e| Failure::new(e.to_string()))?;
            anstream::println!("{text}");
            return Ok(());
        }
        anstream::println!("{}", self.machine);
        anstream::println!("{} jobs a round, {} rounds, events {}", self.count, self.rounds.len(), self.events);
        anstream::println!("jobs   {jobs_per_s:>9.0}/s   floor {floor_per_s:>9.0}/s   ratio {ratio:.2} (medians)");
        anstream::println!("CPU per job, all processes: {cpu_us_per_job:.0} µs");
        if let Some(l) = &self.latency {
            anstream::println!("{l}");
        }
        for d in &self.drains {
            let rate = median(d.per_s.iter().copied());
            let enqueued = median(d.enqueued_per_s.iter().copied());
            let times = d.per_s.len();
            anstream::println!("drain of {:>9}: {rate:.0}/s, queued at {enqueued:.0}/s (medians of {times})", d.queued);
        }
        let Delivery { accepted, succeeded, lost, duplicated } = self.delivery;
        anstream::println!("accepted {accepted}, succeeded {succeeded}, lost {lost}, duplicated {duplicated}");
        if let (Some(first), Some(last)) = (self.memory.first(), self.memory.last()) {
            let line: Vec<_> =
                last.0.iter().map(|(n, m)| format!("{n} {} → {m} MiB", first.0.get(n).unwrap_or(&0))).collect();
            anstream::println!("resident memory, start → end: {}", line.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}

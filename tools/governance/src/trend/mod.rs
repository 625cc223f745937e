//! `agentforge governance trend`: what containers and processes use, over the last samples, as rows and for Prometheus.
//!
//! One call takes one sample of everything that is named, appends a row for each, and writes the metrics again. Rows are
//! numbered; a number counts once, also where its row appears twice.

mod prometheus;
mod rows;
mod usage;

use crate::{
    artifact::{Artifacts, write},
    trend::{
        rows::{Rows, append},
        usage::{Source, Use},
    },
};
use agentforge_terminal::{Failure, Output, Result, duration};
use std::{path::PathBuf, thread, time::Duration, time::Instant};

/// A shorter time between two readings gives no share of a processor worth reading.
const INTERVAL_MIN: Duration = Duration::from_millis(20);
/// More would be a mistake.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// What to measure, and where to write it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Rows are appended here, one JSON document per line
    #[arg(long, value_name = "FILE")]
    jsonl: PathBuf,
    /// Metrics are written here, as Prometheus reads them
    #[arg(long, value_name = "FILE")]
    prom: PathBuf,
    /// Samples of each container that averages, maxima and histograms look at
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    window: u32,
    /// Bounds of a histogram of processor percent, such as 0,10,25,50,75,90,100
    #[arg(long, value_name = "BOUNDS", value_parser = bounds)]
    hist_cpu: Option<Bounds>,
    /// Bounds of a histogram of memory percent
    #[arg(long, value_name = "BOUNDS", value_parser = bounds)]
    hist_mem: Option<Bounds>,
    /// A container's cgroup (version 2) below the root; repeated [default: every one with a process]
    #[arg(long, value_name = "[NAME=]PATH")]
    cgroup: Vec<String>,
    /// A process; repeated
    #[arg(long, value_name = "[NAME=]PID")]
    pid: Vec<String>,
    /// Where the cgroups are
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,
    /// Time between the two readings that a share of the processor is taken from
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    interval: Duration,
    /// Take no sample: only write the metrics of what is there
    #[arg(long)]
    no_sample: bool,
}

/// Bounds of a histogram, rising.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds(Vec<f64>);

fn bounds(text: &str) -> std::result::Result<Bounds, String> {
    let parsed: std::result::Result<Vec<f64>, _> = text.split(',').map(|bound| bound.trim().parse()).collect();
    match parsed {
        Ok(bounds)
            if bounds.iter().all(|b: &f64| b.is_finite())
                && bounds.is_sorted_by(|a, b| a < b)
                && bounds.len() <= 100 =>
        {
            Ok(Bounds(bounds))
        }
        _ => Err("at most 100 rising numbers, separated by commas, such as 0,25,50,100".to_owned()),
    }
}

/// Takes a sample and writes the metrics.
///
/// # Errors
/// A row in the middle of the file cannot be read (3), nothing to measure (2), or a file cannot be written (1).
pub fn run(args: &Args, artifacts: &Artifacts, out: Output) -> Result {
    if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&args.interval) {
        return Err(Failure::usage("--interval must be between 20ms and 1m"));
    }
    let used = if args.no_sample { Vec::new() } else { sample(args)? };
    // Held until the end: two that run at the same time take numbers one after the other.
    let mut file = rows::open(&args.jsonl)?;
    let mut rows = Rows::read(&args.jsonl, &mut file)?;
    let new = rows.add(&used, artifacts.at(), args.window as usize);
    append(&args.jsonl, &mut file, &new)?;
    let cpu = args.hist_cpu.as_ref().map(|bounds| bounds.0.as_slice());
    let mem = args.hist_mem.as_ref().map(|bounds| bounds.0.as_slice());
    write(&args.prom, &prometheus::text(&rows, args.window as usize, cpu, mem))?;
    if out.json {
        return new.iter().try_for_each(|row| out.document(row));
    }
    out.line(format_args!("{} rows added, metrics in {}", new.len(), args.prom.display()))
}

/// Reads everything twice, and gives what was used in between.
fn sample(args: &Args) -> Result<Vec<Use>> {
    let mut sources = Vec::new();
    for named in &args.cgroup {
        sources.push(Source::cgroup(named, &args.cgroup_root)?);
    }
    for named in &args.pid {
        sources.push(Source::process(named)?);
    }
    if sources.is_empty() {
        sources = usage::every_cgroup(&args.cgroup_root)?;
    }
    let begin: Vec<_> = sources
        .into_iter()
        .map(|source| source.read().map(|read| (source, read, Instant::now())))
        .collect::<Result<_>>()?;
    thread::sleep(args.interval);
    // What ended in between is left out: it has no use any more.
    let ended = begin.into_iter().filter_map(|(source, before, at)| {
        let after = source.read().ok()?;
        Some(Use::between(source.name(), &before, &after, at.elapsed()))
    });
    Ok(ended.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise() {
        assert_eq!(bounds("0, 10,25.5"), Ok(Bounds(vec![0.0, 10.0, 25.5])));
        for text in ["", "1,1", "2,1", "a", "inf", "1,,2"] {
            assert!(bounds(text).is_err(), "{text}");
        }
    }
}

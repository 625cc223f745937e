//! The order of a run: floor and throughput in turn, then latency, then (if asked for) drain.

use crate::{
    check::Delivery,
    floor, latency, machine,
    process::processor_time,
    report::{Drain, Report, Round},
    stack::{Setup, Stack},
    throughput::{self, Drained, Way},
};
use agentforge_terminal::{Failure, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Life-cycle events of jobs while measuring: all of them, as by default.
pub const EVENTS: &str = "all";

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Jobs of one round
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
    pub count: u64,
    /// Rounds; each measures the floor and the product, the medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub rounds: u32,
    /// Jobs the worker runs at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: u32,
    /// Bytes of each job's args
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub args_bytes: u32,
    /// Jobs per second while latency is measured
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Seconds of measuring latency; 0 skips this
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub rate_seconds: u32,
    /// Backlogs to queue and drain, in turn, comma separated
    #[arg(long, value_delimiter = ',', value_name = "JOBS")]
    pub drain: Vec<u64>,
    /// Times each backlog is drained
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub drain_rounds: u32,
    /// How backlogs are submitted: on gRPC streams, or in REST batches of 1000
    #[arg(long, value_enum, default_value_t = Way::Grpc)]
    pub submit: Way,
    /// Life-cycle events while measuring: all, final or off
    #[arg(long, default_value = EVENTS, value_parser = ["all", "final", "off"])]
    pub events: String,
    /// Where the stack keeps its data; removed afterwards unless it existed
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Postgres instead of SQLite; its own database, which must be empty
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// Runs everything and prints the report.
///
/// # Errors
/// When the stack does not start, a step takes too long, or delivery was not exact.
pub async fn run(args: Args, json: bool) -> Result {
    let say = |text: String| {
        if !json {
            anstream::eprintln!("{text}");
        }
    };
    let setup = Setup {
        dir: args.data_dir.clone().unwrap_or_else(|| PathBuf::from(".agentforge-bench")),
        concurrency: args.concurrency,
        events: args.events.clone(),
        store: args.store.clone(),
        env: vec![],
    };
    let mut stack = Stack::start(&setup).await?;
    // A data directory may hold the jobs of an earlier run.
    let run = uuid::Uuid::now_v7().simple().to_string();
    let machine = machine::describe(stack.dir())?;
    say(format!("{machine}"));
    let mut delivery = Delivery::default();
    let mut rounds = Vec::new();
    let mut memory = vec![stack.memory()];
    // First: rounds at full load leave a shared machine slower than it was for a minute.
    let latency = match args.rate_seconds {
        0 => None,
        s => {
            let label = format!("{run}-latency");
            let time = Duration::from_secs(s.into());
            let measured = latency::measure(&stack, args.rate, time, args.args_bytes, &label).await?;
            delivery.add(stack.check(&label, measured.jobs).await?);
            say(format!("{measured}"));
            Some(measured)
        }
    };
    for n in 1..=args.rounds {
        let label = format!("{run}-{n}");
        let product = async || product(&stack, args.count, args.args_bytes, &label).await;
        let floor = async || floor::measure(stack.nats_url(), args.count, args.args_bytes).await;
        // The second side finds the machine more tired: they take turns.
        let (floor_per_s, (jobs_per_s, cpu_us)) = match n % 2 {
            1 => (floor().await?, product().await?),
            _ => {
                let measured = product().await?;
                (floor().await?, measured)
            }
        };
        delivery.add(stack.check(&label, args.count).await?);
        memory.push(stack.memory());
        let round = Round { floor_per_s, jobs_per_s, cpu_us };
        say(format!("round {n}: {round}"));
        rounds.push(round);
    }
    let mut drains: Vec<Drain> =
        args.drain.iter().map(|n| Drain { queued: *n, enqueued_per_s: vec![], per_s: vec![] }).collect();
    for round in 1..=args.drain_rounds {
        for d in &mut drains {
            let label = format!("{run}-drain-{}-{round}", d.queued);
            let Drained { enqueued_per_s, per_s } =
                throughput::drain(&stack, args.submit, d.queued, args.args_bytes, &label).await?;
            delivery.add(stack.check(&label, d.queued).await?);
            memory.push(stack.memory());
            say(format!("queued {} jobs at {enqueued_per_s:.0}/s, drained at {per_s:.0}/s", d.queued));
            d.enqueued_per_s.push(enqueued_per_s);
            d.per_s.push(per_s);
        }
    }
    let counts = args.count;
    let report =
        Report { machine, count: counts, rounds, latency, drains, delivery, memory, events: args.events.clone() };
    stack.stop().await?;
    report.print(json)?;
    if report.delivery.is_exact() {
        Ok(())
    } else {
        Err(Failure::new("delivery was not exact: see lost and duplicated above"))
    }
}

/// Jobs per second, and what each of them took of each process, in microseconds.
async fn product(stack: &Stack, count: u64, args_bytes: u32, label: &str) -> Result<(f64, BTreeMap<String, f64>)> {
    let times = || {
        let mut times = stack.processor_times();
        let here = i32::try_from(std::process::id()).ok().and_then(processor_time);
        times.extend(here.map(|time| ("submitter".to_owned(), time)));
        times
    };
    let before = times();
    let jobs_per_s = throughput::measure(stack, count, args_bytes, label).await?;
    let cpu_us = times().into_iter().filter_map(|(name, time)| {
        let taken = time.checked_sub(*before.get(&name)?)?;
        Some((name, taken.as_secs_f64() * 1e6 / count as f64))
    });
    Ok((jobs_per_s, cpu_us.collect()))
}

//! `agentforge bench tactical`: events to many clients, compared with writing the same frames to as many sockets.
//!
//! Starts a NATS server, the tactical API and the clients as processes of their own. Floor and product take
//! turns in the same run; processor time is what the kernel accounts to each process.

mod figures;
pub mod floor;
pub mod load;
mod report;
mod rig;
mod stalled;
mod usage;

use crate::{machine, process};
use agentforge_terminal::{Failure, Result};
use report::Report;
use rig::Bench;
use std::path::{Path, PathBuf};

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Clients, one run for each
    #[arg(long, value_delimiter = ',', default_values_t = [500, 2000], value_name = "N,N")]
    pub clients: Vec<usize>,
    /// Events per second, one run for each
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
    /// Idle clients whose memory is measured; 0 skips this
    #[arg(long, default_value_t = 10_000)]
    pub idle: usize,
    /// Clients that read nothing while others are measured; 0 skips this
    #[arg(long, default_value_t = 20)]
    pub stalled: usize,
    /// Number of measurements without and with them, in turns
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
                let run = bench.run(channel, *clients, *rate, args.seconds, args.rounds).await?;
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

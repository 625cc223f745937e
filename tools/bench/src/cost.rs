//! What being watched costs: processor time a job with metrics and sampled traces, and without both.
//!
//! Two stacks run and work in turn, so that both see the same minutes of the machine. Each job is a call of its own,
//! because whether a trace is sampled is decided for each call.

use crate::{
    jobs::EVENTS,
    machine,
    process::processor_time,
    report::median,
    stack::{Setup, Stack, fetch},
    throughput::{client, request},
};
use agentforge_message_id::Mission;
use agentforge_proto::v1::{SubmitJobRequest, jobs_client::JobsClient};
use agentforge_terminal::{Failure, Result};
use futures_util::{StreamExt, TryStreamExt};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Calls under way at once.
const CALLS: usize = 64;
/// Jobs of each stack before the first round: connections, caches and the first pages of memory.
const WARM_UP: u64 = 2_000;
/// Between two scrapes of a stack that is watched, as in the shipped ServiceMonitor.
const SCRAPE_EVERY: Duration = Duration::from_secs(15);
/// Longest standstill before a run is given up.
const STALL_MAX: Duration = Duration::from_secs(60);
/// After the last job: what is written behind it belongs to it.
const SETTLE: Duration = Duration::from_millis(300);
/// The services whose time counts as a job's.
const SERVICES: [&str; 2] = ["orchestrator", "worker"];
/// The server between them, told apart.
const NATS: &str = "nats-server";

/// How to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Jobs of one round
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub count: u64,
    /// Pairs of rounds, one watched and one not
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub pairs: u32,
    /// Share of sampled traces
    #[arg(long, default_value_t = 0.01)]
    pub sample: f64,
    /// The difference between the two sides
    #[arg(long, value_enum, default_value = "both")]
    pub part: Part,
    /// Jobs the worker runs at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: u32,
    /// Bytes of each job's args
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub args_bytes: u32,
    /// Where the stacks keep their data; removed afterwards unless it existed
    #[arg(long, value_name = "DIR", default_value = ".agentforge-bench")]
    pub data_dir: PathBuf,
}

/// What is turned on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Metrics and traces
    Both,
    /// Only metrics; no traces on either side
    Metrics,
    /// Only traces; no metrics on either side
    Traces,
}

/// Processor time of one round, microseconds a job.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    orchestrator_us: f64,
    worker_us: f64,
    nats_us: f64,
    jobs_per_s: f64,
}

impl Round {
    /// What counts: our own services.
    fn total(&self) -> f64 {
        self.orchestrator_us + self.worker_us
    }
}

/// Two rounds of the same minute.
#[derive(Clone, Debug, Serialize)]
struct Pair {
    on: Round,
    off: Round,
}

impl Pair {
    fn cost(&self) -> f64 {
        self.on.total() / self.off.total() - 1.0
    }
}

/// Runs everything and prints the report.
///
/// # Errors
/// When a stack does not start, jobs do not end, or nothing was traced that had to be.
pub async fn run(args: Args, json: bool) -> Result {
    let collector = Collector::start().await?;
    let is_new = !args.data_dir.exists();
    let (mut on, mut off) = (side(&args, "on", &collector).await?, side(&args, "off", &collector).await?);
    let machine = machine::describe(on.stack.dir())?;
    let say = |text: String| {
        if !json {
            anstream::eprintln!("{text}");
        }
    };
    say(format!("{machine}"));
    for side in [&on, &off] {
        side.round(&args, WARM_UP).await?;
    }
    let mut pairs = Vec::new();
    for n in 0..args.pairs {
        // The first side finds another machine than the second.
        let pair = if n % 2 == 0 {
            let first = on.round(&args, args.count).await?;
            Pair { on: first, off: off.round(&args, args.count).await? }
        } else {
            let first = off.round(&args, args.count).await?;
            Pair { on: on.round(&args, args.count).await?, off: first }
        };
        let (on, off, cost) = (pair.on.total(), pair.off.total(), pair.cost() * 100.0);
        say(format!("pair {}: on {on:.1} µs, off {off:.1} µs a job, {cost:+.1} %", n + 1));
        pairs.push(pair);
    }
    on.stack.stop().await?;
    off.stack.stop().await?;
    if is_new {
        let _ = std::fs::remove_dir_all(&args.data_dir);
    }
    let spans = collector.spans.load(Ordering::Relaxed);
    if spans == 0 && args.part != Part::Metrics && args.sample > 0.0 {
        return Err(Failure::new("no span came: what was measured is not the cost of traces"));
    }
    tell(&args, &machine, &pairs, spans, json)
}

fn tell(args: &Args, machine: &machine::Machine, pairs: &[Pair], spans: u64, json: bool) -> Result {
    let mut costs: Vec<f64> = pairs.iter().map(Pair::cost).collect();
    costs.sort_by(f64::total_cmp);
    let cost = median(costs.iter().copied());
    let range = [costs[0], costs[costs.len() - 1]];
    let of = |side: fn(&Pair) -> &Round, part: fn(&Round) -> f64| median(pairs.iter().map(|pair| part(side(pair))));
    let middle = |side: fn(&Pair) -> &Round| Round {
        orchestrator_us: of(side, |r| r.orchestrator_us),
        worker_us: of(side, |r| r.worker_us),
        nats_us: of(side, |r| r.nats_us),
        jobs_per_s: of(side, |r| r.jobs_per_s),
    };
    let (on, off) = (middle(|pair| &pair.on), middle(|pair| &pair.off));
    if json {
        let document = serde_json::json!({
            "cost": cost, "cost_range": range, "on": on, "off": off, "pairs": pairs, "count": args.count,
            "sample": args.sample, "part": args.part, "spans": spans, "machine": machine,
        });
        anstream::println!("{document}");
        return Ok(());
    }
    anstream::println!(
        "{} pairs of {} jobs, {:.1} % of traces sampled, {spans} spans came",
        pairs.len(),
        args.count,
        args.sample * 100.0
    );
    for (name, round) in [("on", on), ("off", off)] {
        let Round { orchestrator_us, worker_us, nats_us, jobs_per_s } = round;
        anstream::println!(
            "{name:<4} orchestrator {orchestrator_us:>6.1} µs, worker {worker_us:>6.1} µs a job; nats-server {nats_us:>6.1} µs; {jobs_per_s:.0} jobs/s (medians)"
        );
    }
    let [low, high] = range.map(|cost| cost * 100.0);
    anstream::println!(
        "cost {:+.1} % of processor time a job (median of pairs; {low:+.1} to {high:+.1} %)",
        cost * 100.0
    );
    Ok(())
}

/// One of the two stacks.
struct Side {
    stack: Stack,
    client: JobsClient<Channel>,
    is_scraped: bool,
}

async fn side(args: &Args, name: &str, collector: &Collector) -> Result<Side> {
    let is_on = name == "on";
    let has = |part: Part| is_on && (args.part == Part::Both || args.part == part);
    let mut env = vec![("METRICS", if has(Part::Metrics) { "on" } else { "off" }.to_owned())];
    if has(Part::Traces) {
        env.push(("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.clone()));
        env.push(("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()));
        env.push(("OTEL_TRACES_SAMPLER_ARG", args.sample.to_string()));
    } else {
        env.push(("OTEL_SDK_DISABLED", "true".to_owned()));
    }
    let setup = Setup {
        dir: args.data_dir.join(name),
        concurrency: args.concurrency,
        events: EVENTS.to_owned(),
        store: None,
        env,
    };
    let stack = Stack::start(&setup).await?;
    Ok(Side { client: client(&stack).await?, stack, is_scraped: has(Part::Metrics) })
}

impl Side {
    /// Submits `count` jobs, waits for their ends, and reports what each took.
    async fn round(&self, args: &Args, count: u64) -> Result<Round> {
        let ends = self.ends(count).await?;
        let before = self.times()?;
        let begun = std::time::Instant::now();
        let request = request(args.args_bytes, "cost");
        let calls = futures_util::stream::iter((0..count).map(|_| submit(self.client.clone(), request.clone())));
        let work = async {
            calls.buffer_unordered(CALLS).try_collect::<()>().await?;
            ends.await.map_err(|e| Failure::new(format!("the ends of jobs were not counted: {e}")))?
        };
        tokio::select! {
            done = work => done?,
            never = self.scrapes(), if self.is_scraped => never?,
        }
        let took = begun.elapsed();
        sleep(SETTLE).await;
        let after = self.times()?;
        let per_job = |n: usize| (after[n] - before[n]).as_secs_f64() * 1e6 / count as f64;
        Ok(Round {
            orchestrator_us: per_job(0),
            worker_us: per_job(1),
            nats_us: per_job(2),
            jobs_per_s: count as f64 / took.as_secs_f64(),
        })
    }

    /// Counts successes as reported on the bus: neither side is asked about its metrics.
    async fn ends(&self, count: u64) -> Result<tokio::task::JoinHandle<Result>> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("cannot follow the jobs' events: {e}"));
        let nats = async_nats::connect(self.stack.nats_url()).await.map_err(|e| failed(&e))?;
        let mission = Mission::new("dev").map_err(|e| failed(&e))?;
        let subject = agentforge_jetstream::subjects::event(&mission, "succeeded");
        let mut events = nats.subscribe(subject).await.map_err(|e| failed(&e))?;
        nats.flush().await.map_err(|e| failed(&e))?;
        Ok(tokio::spawn(async move {
            let _nats = nats;
            for n in 0..count {
                match timeout(STALL_MAX, events.next()).await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Err(Failure::new("the subscription to the jobs' events has ended")),
                    Err(_) => return Err(Failure::new(format!("{} jobs are missing and nothing moves", count - n))),
                }
            }
            Ok(())
        }))
    }

    /// As a Prometheus would; runs until it is dropped.
    async fn scrapes(&self) -> Result {
        loop {
            for service in SERVICES {
                fetch(&self.stack.service(service)?.http, "/metrics").await?;
            }
            sleep(SCRAPE_EVERY).await;
        }
    }

    fn times(&self) -> Result<[Duration; 3]> {
        let time = |name: &str| {
            let time = self.stack.pid(name).and_then(processor_time);
            time.ok_or_else(|| Failure::new(format!("the processor time of {name} cannot be read")))
        };
        Ok([time(SERVICES[0])?, time(SERVICES[1])?, time(NATS)?])
    }
}

async fn submit(mut client: JobsClient<Channel>, request: SubmitJobRequest) -> Result {
    let answer = client.submit_job(request).await;
    answer.map(drop).map_err(|e| Failure::new(format!("submitting failed: {}", e.message())))
}

/// A receiver of OTLP that counts spans.
struct Collector {
    endpoint: String,
    spans: Arc<AtomicU64>,
}

struct Counting(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Counting {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> std::result::Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens for the life of this process.
    async fn start() -> Result<Self> {
        let failed = |e: std::io::Error| Failure::new(format!("cannot listen for traces: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let endpoint = format!("http://{}", listener.local_addr().map_err(failed)?);
        let spans = Arc::new(AtomicU64::new(0));
        let service = TraceServiceServer::new(Counting(spans.clone()));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Ok(Self { endpoint, spans })
    }
}

//! What there is once per process: log subscriber, metrics recorder, TLS provider, trace exporter.
//!
//! `init` may be called again; the first call decides about logs and traces, later ones only add
//! metrics. That is how several services, and tests, share one process.

use crate::scrape::Refreshers;
use crate::{metrics, telemetry};
use agentforge_config::{Common, LogFormat};
use agentforge_metrics::{Handle, Metric};
use opentelemetry_sdk::trace::SdkTracerProvider;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How often observations move into their buckets and runtime gauges are set.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's globals. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Process {
    metrics: Handle,
    refreshers: Refreshers,
    exporter: Option<SdkTracerProvider>,
}

static PROCESS: OnceLock<Process> = OnceLock::new();

impl Process {
    /// Sets up the globals of a process that hosts these services, under the name `agentforge`; see
    /// [`init_as`](Self::init_as). Traces have the names of the services.
    pub fn init(services: &[&'static str], common: &Common, catalogues: &[&[Metric]]) -> Self {
        Self::init_under("agentforge", services, common, catalogues)
    }

    /// Sets up the globals: rustls' ring provider, the log subscriber, the recorder with the given
    /// metrics and the chassis's own (none of it with METRICS=off), the trace exporter if an endpoint is set,
    /// and a log line for panics. Needs a running tokio runtime. Harmless when called again.
    pub fn init_as(name: &'static str, common: &Common, catalogues: &[&[Metric]]) -> Self {
        Self::init_under(name, &[], common, catalogues)
    }

    fn init_under(name: &'static str, services: &[&'static str], common: &Common, catalogues: &[&[Metric]]) -> Self {
        let mut all = catalogues.to_vec();
        all.push(metrics::METRICS);
        let handle =
            if common.metrics { agentforge_metrics::install(&all) } else { agentforge_metrics::record_nothing() };
        PROCESS
            .get_or_init(|| {
                install_tls_provider();
                raise_open_files();
                crate::http::configure(common);
                let exporter = telemetry::install(name, services, common);
                std::panic::set_hook(Box::new(telemetry::log_panic));
                start_upkeep(handle.clone());
                Self { metrics: handle, refreshers: Refreshers::default(), exporter }
            })
            .clone()
    }

    /// The globals for tests: warnings as text (RUST_LOG chooses more), no traces exported.
    pub fn for_tests() -> Self {
        let handle = agentforge_metrics::install(&[metrics::METRICS]);
        PROCESS
            .get_or_init(|| {
                install_tls_provider();
                let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
                telemetry::install_logs("test", &level, LogFormat::Text);
                start_upkeep(handle.clone());
                Self { metrics: handle, refreshers: Refreshers::default(), exporter: None }
            })
            .clone()
    }

    /// The metrics of the whole process in the Prometheus text format. Gauges that are counted elsewhere are
    /// counted for it, within a quarter of a second; what takes longer stays as it was.
    pub async fn scrape(&self) -> String {
        self.refreshers.run().await;
        self.metrics.render()
    }

    pub(crate) fn refreshers(&self) -> &Refreshers {
        &self.refreshers
    }

    /// Sends what is left of the traces, for at most `limit`. The last act of a process: nothing
    /// is exported after it.
    pub async fn flush(&self, limit: Duration) {
        if let Some(exporter) = self.exporter.clone() {
            telemetry::shut_down(exporter, limit).await;
        }
    }
}

/// Every connection is an open file, and the soft limit of many systems is 1024. The hard one is what the
/// machine's owner allows.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(%error, "the limit of open files is unchanged");
    }
}

/// A second install is refused by rustls, and the first one is kept.
fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A thread, not a task: the recorder lives as long as the process, tests' runtimes do not.
fn start_upkeep(metrics: Handle) {
    let runtime = tokio::runtime::Handle::try_current().ok();
    let upkeep = move || {
        let mut last = Busy::default();
        loop {
            std::thread::sleep(UPKEEP);
            metrics.upkeep();
            if let Some(runtime) = &runtime {
                last = observe_runtime(runtime, last);
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(upkeep) {
        tracing::error!(%error, "no thread for the upkeep of metrics; memory grows between scrapes");
    }
}

#[derive(Default)]
struct Busy {
    at: Option<Instant>,
    total: Duration,
}

fn observe_runtime(runtime: &tokio::runtime::Handle, last: Busy) -> Busy {
    let now = runtime.metrics();
    let workers = now.num_workers();
    let busy = Busy {
        at: Some(Instant::now()),
        total: (0..workers).map(|worker| now.worker_total_busy_duration(worker)).sum(),
    };
    metrics::WORKERS.set(&[], workers as f64);
    metrics::ALIVE_TASKS.set(&[], now.num_alive_tasks() as f64);
    metrics::QUEUE_DEPTH.set(&[], now.global_queue_depth() as f64);
    if let (Some(before), Some(at)) = (last.at, busy.at) {
        let span = (at - before).as_secs_f64() * workers as f64;
        let ratio = busy.total.saturating_sub(last.total).as_secs_f64() / span.max(f64::EPSILON);
        metrics::BUSY_RATIO.set(&[], ratio.clamp(0.0, 1.0));
    }
    busy
}

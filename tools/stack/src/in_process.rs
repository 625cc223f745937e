//! The services inside this process: one pid, one page of metrics, stopped one after the other.

use crate::{
    ready::ServiceReady,
    roster::{BROADCASTER, NATS_EXPORTER, ORCHESTRATOR, SYNCDAEMON, TACTICAL_API, WORKER},
    settings::Settings,
};
use agentforge_broadcaster::Broadcaster;
use agentforge_config::{EXIT_CODE, Env, Reader};
use agentforge_nats_exporter::NatsExporter;
use agentforge_orchestrator::Orchestrator;
use agentforge_runtime::{Endpoints, Host, Member, Process, Runtime, Service, Signals};
use agentforge_syncdaemon::Syncdaemon;
use agentforge_tactical_api::TacticalApi;
use agentforge_terminal::{Failure, Result};
use agentforge_worker::WorkerService;
use std::{collections::BTreeMap, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the last traces may take to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// The services of this process.
pub struct InProcess {
    process: Process,
    /// In the order of stopping.
    running: Vec<Running>,
    metrics: Option<String>,
}

struct Running {
    name: &'static str,
    endpoints: Endpoints,
    stop: CancellationToken,
    task: JoinHandle<Result<(), anyhow::Error>>,
}

impl InProcess {
    /// Builds and runs all of them.
    ///
    /// # Errors
    /// A wrong setting (exit code 64), or a service that cannot be built.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let orchestrator = read::<Orchestrator>(settings.quiet(settings.orchestrator()))?;
        let worker = read::<WorkerService>(settings.quiet(settings.worker()))?;
        let syncdaemon = settings.syncdaemon().map(|map| read::<Syncdaemon>(settings.quiet(map))).transpose()?;
        let exporter = settings.nats_exporter().map(|map| read::<NatsExporter>(settings.quiet(map))).transpose()?;
        let tactical = settings.tactical_api().map(|map| read::<TacticalApi>(settings.quiet(map))).transpose()?;
        let broadcaster = settings.broadcaster().map(|map| read::<Broadcaster>(settings.quiet(map))).transpose()?;
        let catalogues = [
            Orchestrator::metrics(),
            WorkerService::metrics(),
            Syncdaemon::metrics(),
            NatsExporter::metrics(),
            Broadcaster::metrics(),
            TacticalApi::metrics(),
        ]
        .concat();
        let process = Process::init(Orchestrator::common(&orchestrator), &catalogues);
        let mut this = Self { process, running: Vec::new(), metrics: None };
        let built = async {
            this.build::<Orchestrator>(ORCHESTRATOR, orchestrator, true).await?;
            this.build::<WorkerService>(WORKER, worker, false).await?;
            this.build_some::<Syncdaemon>(SYNCDAEMON, syncdaemon).await?;
            this.build_some::<Broadcaster>(BROADCASTER, broadcaster).await?;
            this.build_some::<TacticalApi>(TACTICAL_API, tactical).await?;
            this.build_some::<NatsExporter>(NATS_EXPORTER, exporter).await
        };
        match built.await {
            Ok(()) => Ok(this),
            Err(failure) => {
                let _ = this.stop(|_| {}).await;
                Err(failure)
            }
        }
    }

    async fn build_some<S: Service>(&mut self, name: &'static str, config: Option<S::Config>) -> Result {
        match config {
            Some(config) => self.build::<S>(name, config, false).await,
            None => Ok(()),
        }
    }

    async fn build<S: Service>(&mut self, name: &'static str, config: S::Config, serves_metrics: bool) -> Result {
        let common = S::common(&config).clone();
        let stop = CancellationToken::new();
        let mut runtime = Runtime::new(S::NAME, stop.clone(), common.shutdown_grace, &self.process);
        if !serves_metrics {
            runtime = runtime.without_metrics_listener();
        }
        let member = Member::build::<S>(config, runtime)
            .await
            .map_err(|e| Failure::new(format!("{name} cannot start: {e:#}")))?;
        let endpoints = member.endpoints();
        self.metrics = self.metrics.take().or(endpoints.metrics_url());
        let host = Host { stop: stop.clone(), signals: Signals::never(), pause: Duration::ZERO, ready_file: None };
        let task = tokio::spawn(agentforge_runtime::run(vec![member], host));
        self.running.insert(0, Running { name, endpoints, stop, task });
        Ok(())
    }

    /// For the ready file.
    pub fn ready(&self) -> BTreeMap<&'static str, ServiceReady> {
        let entry = |r: &Running| ServiceReady {
            http: r.endpoints.http_url(),
            grpc: r.endpoints.grpc_url(),
            metrics: r.endpoints.metrics_url().or(self.metrics.clone()),
            pid: Some(std::process::id()),
        };
        self.running.iter().map(|r| (r.name, entry(r))).collect()
    }

    /// Resolves when a service ended unasked.
    pub async fn failed(&mut self) -> Failure {
        let mut ends: Vec<_> = self.running.iter_mut().map(|r| (r.name, &mut r.task)).collect();
        let (name, ended) = std::future::poll_fn(|context| {
            for (name, task) in &mut ends {
                if let std::task::Poll::Ready(ended) = std::pin::Pin::new(&mut **task).poll(context) {
                    return std::task::Poll::Ready((*name, ended));
                }
            }
            std::task::Poll::Pending
        })
        .await;
        self.running.retain(|r| r.name != name);
        match ended {
            Ok(Ok(())) => Failure::new(format!("{name} ended unasked")),
            Ok(Err(e)) => Failure::new(format!("{name} failed: {e:#}")),
            Err(e) => Failure::new(format!("{name} failed: {e}")),
        }
    }

    /// Stops them in the other order than they were started; `tell` is called before each.
    ///
    /// # Errors
    /// The first that did not drain.
    pub async fn stop(self, tell: impl Fn(&str)) -> Result {
        let mut outcome = Ok(());
        for running in self.running {
            tell(running.name);
            running.stop.cancel();
            let ended = match running.task.await {
                Ok(ended) => ended.map_err(|e| Failure::new(format!("{} did not stop cleanly: {e:#}", running.name))),
                Err(e) => Err(Failure::new(format!("{} did not stop cleanly: {e}", running.name))),
            };
            outcome = outcome.and(ended);
        }
        self.process.flush(FLUSH).await;
        outcome
    }
}

fn read<S: Service>(map: BTreeMap<String, String>) -> Result<S::Config> {
    let source = (map, Env);
    let mut reader = Reader::new(&source);
    let config = S::read_config(&mut reader);
    if let Err(problem) = agentforge_runtime::check_log_level(&S::common(&config).log_level) {
        reader.fault("LOG_LEVEL", problem);
    }
    reader.finish().map(|_| config).map_err(|faults| {
        let failure =
            Failure::new(format!("the settings of the {} are not right, nothing was started\n{faults}", S::NAME));
        Failure { exit: EXIT_CODE, ..failure.hint("`agentforge settings` lists every setting") }
    })
}

//! The services inside this process: one pid, one page of metrics, stopped one after the other.

use crate::{
    program::Configured,
    ready::ServiceReady,
    roster::{SERVICES, Service},
    settings::Settings,
};
use agentforge_runtime::{Endpoints, Host, Process, Runtime, Signals};
use agentforge_terminal::{Failure, Result};
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
        let wanted = SERVICES.iter().filter_map(|service| Some((service, service.env(settings)?)));
        let read = wanted.map(|(service, env)| Ok((service, (service.program.read)(settings.quiet(env))?)));
        let configured = read.collect::<Result<Vec<_>>>()?;
        // Those of services that are left out, too: every page of metrics explains the same names.
        let catalogues: Vec<_> = SERVICES.iter().flat_map(|service| (service.program.metrics)()).collect();
        let (_, first) = configured.first().ok_or_else(|| Failure::usage("every service is left out"))?;
        let names: Vec<_> = configured.iter().map(|(service, _)| service.name).collect();
        let process = Process::init(&names, first.common(), &catalogues);
        let mut this = Self { process, running: Vec::new(), metrics: None };
        let built = async {
            for (n, (service, configured)) in configured.into_iter().enumerate() {
                this.build(service, configured, n == 0).await?;
            }
            Ok::<_, Failure>(())
        };
        match built.await {
            Ok(()) => Ok(this),
            Err(failure) => {
                let _ = this.stop(|_| {}).await;
                Err(failure)
            }
        }
    }

    /// The first one's page of metrics is that of the process.
    async fn build(&mut self, service: &'static Service, configured: Box<dyn Configured>, is_first: bool) -> Result {
        let (name, grace) = (service.name, configured.common().shutdown_grace);
        let stop = CancellationToken::new();
        let mut runtime = Runtime::new(name, stop.clone(), grace, &self.process);
        if !is_first {
            runtime = runtime.without_metrics_listener();
        }
        let member =
            configured.build(runtime).await.map_err(|e| Failure::new(format!("{name} cannot start: {e:#}")))?;
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

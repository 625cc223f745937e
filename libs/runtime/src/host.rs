//! Runs the services of one process from "built" to "drained": one in a service's own binary,
//! several in the all-in-one.
//!
//! A stop comes from a signal, from the token, or from a service that ended. Then: not ready, a
//! pause, the token, and every service drains within the grace period. The first thing that went
//! wrong is what `run` returns.

use crate::error_text::chain;
use crate::ready_file::remove_ready_file;
use crate::{Endpoints, Error, Runtime, Service, Signals, write_ready_file};
use agentforge_config::Common;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info};

/// How long after the grace period a service may take to return before it is given up.
const OVERRUN: Duration = Duration::from_secs(2);

/// A service that is built and bound, and not yet running.
pub struct Member {
    runtime: Runtime,
    endpoints: Endpoints,
    run: Pin<Box<dyn Future<Output = Result<(), anyhow::Error>> + Send>>,
}

/// How the services of a process are stopped, and where their addresses are reported.
#[derive(Debug)]
pub struct Host {
    /// Stops all services; the runtimes have it or children of it.
    pub stop: CancellationToken,
    /// Requests to stop from outside.
    pub signals: Signals,
    /// Between "not ready" and the stop.
    pub pause: Duration,
    /// Where the addresses are written.
    pub ready_file: Option<PathBuf>,
}

impl Host {
    /// A host with the pause and the ready file of the common settings.
    pub fn new(common: &Common, stop: CancellationToken, signals: Signals) -> Self {
        Self { stop, signals, pause: common.shutdown_pause, ready_file: common.ready_file.clone() }
    }
}

impl Member {
    /// Builds a service. If that fails, what it had spawned is stopped and awaited first.
    ///
    /// # Errors
    /// What the service's `build` returned.
    pub async fn build<S: Service>(config: S::Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        crate::metrics::BUILD_INFO.set(&[runtime.name(), S::VERSION], 1.0);
        match S::build(config, runtime.clone()).instrument(runtime.scope()).await {
            Ok(service) => Ok(Self { endpoints: service.endpoints(), run: Box::pin(service.run()), runtime }),
            Err(failure) => {
                runtime.stopping().cancel();
                // The build's error is the cause; what its tasks say while stopping is not.
                let _ = runtime.supervisor().drain(tokio::time::Instant::now() + OVERRUN).await;
                Err(failure)
            }
        }
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.runtime.name()
    }

    /// Where the service listens.
    pub fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// The service's runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Runs until the stop and the drain, for at most the grace period and a little after the stop.
    async fn run(self) -> Result<(), anyhow::Error> {
        let runtime = self.runtime;
        let mut task = tokio::spawn(self.run.instrument(runtime.scope()));
        let overrun = async {
            runtime.stopping().cancelled().await;
            tokio::time::sleep_until(runtime.drain_deadline() + OVERRUN).await;
        };
        let outcome = tokio::select! {
            outcome = &mut task => outcome.unwrap_or_else(|join| Err(anyhow::anyhow!("panicked: {join}"))),
            () = overrun => {
                task.abort();
                Err(anyhow::anyhow!("did not drain within its grace period of {:?}", runtime.grace()))
            }
        };
        let ended_early = !runtime.stopping().is_cancelled();
        runtime.stopping().cancel();
        let drained = runtime.supervisor().drain(runtime.drain_deadline()).await;
        match (drained, outcome) {
            // A fatal task is why the service stopped; what run returned is a consequence.
            (Err(failure @ Error::Task(_)), _) => Err(failure.into()),
            (_, Err(failure)) => Err(failure),
            (Err(failure), Ok(())) => Err(failure.into()),
            (Ok(()), Ok(())) if ended_early => Err(anyhow::anyhow!("ended without being asked to stop")),
            (Ok(()), Ok(())) => Ok(()),
        }
    }
}

/// Runs services until they are stopped and drained. Writes the ready file, logs the addresses, and
/// removes the file at the end.
///
/// # Errors
/// The first failure of any of them; all others are stopped then and awaited.
pub async fn run(members: Vec<Member>, host: Host) -> Result<(), anyhow::Error> {
    let runtimes: Vec<Runtime> = members.iter().map(|member| member.runtime.clone()).collect();
    let outcome = announce(&members, &host);
    let mut running = JoinSet::new();
    for member in members {
        running.spawn(async move {
            let name = member.name();
            (name, member.run().await)
        });
    }
    let mut failure = outcome.err().map(anyhow::Error::from);
    if failure.is_none() {
        failure = until_stop(&mut running, &runtimes, &host).await.err();
    }
    runtimes.iter().for_each(|runtime| runtime.readiness().set_stopping());
    host.stop.cancel();
    runtimes.iter().for_each(|runtime| runtime.stopping().cancel());
    while let Some(ended) = running.join_next().await {
        if let Err(error) = told(ended) {
            failure.get_or_insert(error);
        }
    }
    if let Some(path) = &host.ready_file {
        remove_ready_file(path);
    }
    match failure {
        None => {
            info!("stopped, everything drained");
            Ok(())
        }
        Some(failure) => {
            error!(error = %chain(failure.as_ref()), "stopped with a failure");
            Err(failure)
        }
    }
}

fn announce(members: &[Member], host: &Host) -> Result<(), Error> {
    for member in members {
        let endpoints = member.endpoints;
        info!(
            service = member.name(),
            http = endpoints.http_url(),
            grpc = endpoints.grpc_url(),
            metrics = endpoints.metrics_url(),
            "READY"
        );
    }
    let services: Vec<_> = members.iter().map(|member| (member.name(), member.endpoints)).collect();
    host.ready_file.as_deref().map_or(Ok(()), |path| write_ready_file(path, &services))
}

type Ended = Result<(&'static str, Result<(), anyhow::Error>), tokio::task::JoinError>;

/// Returns when the services should stop: on request, or because one ended.
async fn until_stop(
    running: &mut JoinSet<(&'static str, Result<(), anyhow::Error>)>,
    runtimes: &[Runtime],
    host: &Host,
) -> Result<(), anyhow::Error> {
    tokio::select! {
        signal = host.signals.first() => info!(signal, pause_seconds = host.pause.as_secs_f64(), "stopping"),
        () = host.stop.cancelled() => return Ok(()),
        Some(ended) = running.join_next() => return told(ended),
    }
    runtimes.iter().for_each(|runtime| runtime.readiness().set_stopping());
    tokio::select! {
        () = tokio::time::sleep(host.pause) => Ok(()),
        () = host.stop.cancelled() => Ok(()),
        Some(ended) = running.join_next() => told(ended),
    }
}

fn told(ended: Ended) -> Result<(), anyhow::Error> {
    match ended {
        Ok((_, Ok(()))) => Ok(()),
        Ok((name, Err(failure))) => Err(failure.context(format!("service {name}"))),
        Err(join) => Err(anyhow::anyhow!("a service panicked: {join}")),
    }
}

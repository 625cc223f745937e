//! The services as the separate binaries next to this one, kept running on the same ports.

use crate::{
    child::Spec,
    keeper::Keeper,
    patience::Patience,
    ready::ServiceReady,
    roster::{Env, SERVICES, Service},
    settings::Settings,
};
use agentforge_terminal::{Failure, Result};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;

/// For a service to open its listeners.
const START_MAX: Duration = Duration::from_secs(60);
/// Longer than any SHUTDOWN_GRACE a developer waits for; a second Ctrl-C ends it earlier.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Between looks for a ready file.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The services as processes.
pub struct Processes {
    /// In the order of stopping.
    running: Vec<Running>,
}

struct Running {
    keeper: Keeper,
    ready: ServiceReady,
}

impl Processes {
    /// Starts all of them and waits until they listen.
    ///
    /// # Errors
    /// A binary is missing, or a service does not come up.
    pub async fn start(settings: &Settings, changed: &Arc<Notify>) -> Result<Self> {
        // The orchestrator is stopped last.
        let wanted = SERVICES.iter().rev().filter_map(|service| Some((service, service.env(settings)?)));
        let started = wanted.map(|(service, env)| Ok((service.name, spec(service, env, &settings.data)?)));
        let started = started.collect::<Result<Vec<_>>>()?;
        // All at once: each waits by itself for what it needs.
        let keepers: Vec<(PathBuf, Keeper)> = started
            .into_iter()
            .map(|(name, spec)| (ready_file(&settings.data, name), Keeper::start(spec, STOP_MAX, changed.clone())))
            .collect();
        let mut this = Self { running: Vec::new() };
        let mut failure = None;
        for (file, keeper) in keepers {
            let listening = match &failure {
                Some(_) => None,
                None => match listening(&keeper, &file, &log_file(&settings.data, keeper.name)).await {
                    Ok(ready) => Some(ready),
                    Err(e) => {
                        failure = Some(e);
                        None
                    }
                },
            };
            match listening {
                Some(ready) => {
                    keeper.established(|spec| keep_ports(&mut spec.env, &ready));
                    this.running.push(Running { keeper, ready });
                }
                None => drop(keeper.stop().await),
            }
        }
        match failure {
            None => Ok(this),
            Some(failure) => {
                let _ = this.stop(|_| {}).await;
                Err(failure)
            }
        }
    }

    /// For the ready file, with the process ids of now.
    pub fn ready(&self) -> BTreeMap<&'static str, ServiceReady> {
        let entry = |r: &Running| ServiceReady { pid: r.keeper.pid(), ..r.ready.clone() };
        self.running.iter().map(|r| (r.keeper.name, entry(r))).collect()
    }

    /// Stops them, the orchestrator last; `tell` is called before each.
    ///
    /// # Errors
    /// The first that did not end with exit code 0.
    pub async fn stop(self, tell: impl Fn(&str)) -> Result {
        let mut outcome = Ok(());
        for running in self.running {
            let name = running.keeper.name;
            tell(name);
            let was_up = running.keeper.pid().is_some();
            let ended = match running.keeper.stop().await {
                Some(status) if status.success() => Ok(()),
                Some(status) => Err(Failure::new(format!("{name} did not stop cleanly ({status})"))),
                None if was_up => Err(Failure::new(format!("{name} did not stop in time and was killed"))),
                None => Ok(()),
            };
            outcome = outcome.and(ended);
        }
        outcome
    }
}

fn ready_file(data: &Path, name: &str) -> PathBuf {
    data.join(format!("run/{name}.json"))
}

fn log_file(data: &Path, name: &str) -> PathBuf {
    data.join(format!("logs/{name}.log"))
}

fn spec(service: &'static Service, mut env: Env, data: &Path) -> Result<Spec> {
    let name = service.name;
    let file = ready_file(data, name);
    crate::ready::remove(&file);
    env.insert("READY_FILE".to_owned(), file.to_string_lossy().into_owned());
    Ok(Spec { name, program: beside(&service.binary())?, args: Vec::new(), env, log: log_file(data, name) })
}

/// A binary in the folder of this one.
fn beside(name: &str) -> Result<PathBuf> {
    let here =
        std::env::current_exe().map_err(|e| Failure::new(format!("this program's own path is not known: {e}")))?;
    let path = here.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Failure::new(format!("{} is not there", path.display()))
            .hint("build all binaries with `cargo build`, or leave out --processes"))
    }
}

async fn listening(keeper: &Keeper, file: &Path, log: &Path) -> Result<ServiceReady> {
    let look = async {
        let mut patience = Patience::new(keeper.name, Some(log), START_MAX);
        loop {
            let seen = std::fs::read(file).ok();
            let services = seen.and_then(|text| serde_json::from_slice::<BTreeMap<String, ServiceReady>>(&text).ok());
            if let Some(ready) = services.and_then(|mut s| s.remove(keeper.name)) {
                return Ok(ready);
            }
            patience.wait(LOOK_EVERY, "it does not listen yet").await?;
        }
    };
    tokio::select! {
        ready = look => ready,
        failure = keeper.failed() => Err(failure),
    }
}

/// A restart must come back where callers look for it.
fn keep_ports(env: &mut BTreeMap<String, String>, ready: &ServiceReady) {
    for (key, url) in [("HTTP_PORT", &ready.http), ("GRPC_PORT", &ready.grpc), ("METRICS_PORT", &ready.metrics)] {
        let port = url.as_deref().and_then(port_of);
        if let Some(port) = port {
            env.insert(key.to_owned(), port.to_string());
        }
    }
}

fn port_of(url: &str) -> Option<u16> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_were_taken_are_asked_for_again() {
        let ready = ServiceReady {
            http: Some("http://127.0.0.1:8080".into()),
            grpc: None,
            metrics: Some("http://[::1]:7777/metrics".into()),
            pid: None,
        };
        let mut env = BTreeMap::from([("HTTP_PORT".to_owned(), "0".to_owned())]);
        keep_ports(&mut env, &ready);
        assert_eq!(env["HTTP_PORT"], "8080");
        assert_eq!(env["METRICS_PORT"], "7777");
        assert!(!env.contains_key("GRPC_PORT"));
    }
}

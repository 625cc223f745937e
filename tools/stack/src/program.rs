//! A service as a value: what it declares, its settings read, and itself built into a process.

use agentforge_config::{Common, EXIT_CODE, Env, Faults, Reader, Setting};
use agentforge_metrics::Metric;
use agentforge_runtime::{Member, Runtime, Service, pages::Declared};
use agentforge_terminal::{Failure, Result};
use std::{collections::BTreeMap, pin::Pin};

/// Reads the settings of a service: the given ones, else those of the environment.
pub type ReadSettings = fn(BTreeMap<String, String>) -> Result<Box<dyn Configured>>;
/// What is wrong with these settings of a service, which are all that there are.
pub type CheckSettings = fn(&BTreeMap<String, String>) -> Option<Faults>;

/// What can be done with the code of a service.
#[derive(Clone, Copy)]
pub struct Program {
    /// Its name in ready files and traces.
    pub name: &'static str,
    /// Its settings and metrics, for the generated pages.
    pub declared: fn() -> Declared,
    /// Every setting that it reads.
    pub settings: fn() -> Vec<(&'static str, Vec<Setting>)>,
    /// Every metric that it records; those of the chassis are not among them.
    pub metrics: fn() -> Vec<&'static [Metric]>,
    /// Reads its settings: these, else those of the environment.
    pub read: ReadSettings,
    /// What its reading finds wrong, regardless of the environment.
    pub faults: CheckSettings,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Program {
    /// Of a service.
    pub const fn of<S: Service>() -> Self {
        Self {
            name: S::NAME,
            declared: Declared::of::<S>,
            settings: S::settings,
            metrics: S::metrics,
            read: read::<S>,
            faults: faults::<S>,
        }
    }
}

/// A service whose settings are right.
pub trait Configured {
    /// The settings that every service has.
    fn common(&self) -> &Common;
    /// Builds the service: binds its ports and connects, but runs nothing yet.
    fn build(self: Box<Self>, runtime: Runtime) -> Pin<Box<dyn Future<Output = Result<Member, anyhow::Error>>>>;
}

struct Of<S: Service>(S::Config);

impl<S: Service> Configured for Of<S> {
    fn common(&self) -> &Common {
        S::common(&self.0)
    }

    fn build(self: Box<Self>, runtime: Runtime) -> Pin<Box<dyn Future<Output = Result<Member, anyhow::Error>>>> {
        Box::pin(Member::build::<S>(self.0, runtime))
    }
}

fn faults<S: Service>(settings: &BTreeMap<String, String>) -> Option<Faults> {
    let mut reader = Reader::new(settings);
    let _ = S::read_config(&mut reader);
    reader.finish().err()
}

fn read<S: Service>(settings: BTreeMap<String, String>) -> Result<Box<dyn Configured>> {
    let source = (settings, Env);
    let mut reader = Reader::new(&source);
    let config = S::read_config(&mut reader);
    if let Err(problem) = agentforge_runtime::check_log_level(&S::common(&config).log_level) {
        reader.fault("LOG_LEVEL", problem);
    }
    reader.finish().map_err(|faults| {
        let failure =
            Failure::new(format!("the settings of the {} are not right, nothing was started\n{faults}", S::NAME));
        Failure { exit: EXIT_CODE, ..failure.hint("`agentforge settings` lists every setting") }
    })?;
    Ok(Box::new(Of::<S>(config)))
}

//! `agentforge dev`: NATS and the services as one command, up until Ctrl-C; with `--edge` a site and its hub.
//!
//! Starts NATS, then the services, and stops in the other order; what ends unasked is
//! restarted (processes) or ends everything (services of this process), never quiet. Relies on the
//! services' own drains. Owns no promise of durability: killing it loses nothing that was accepted.

use crate::{
    banner,
    console::ConsoleStart,
    data_dir::DataDir,
    demo, evidence, feed,
    in_process::InProcess,
    patience::Patience,
    ports::{Ports, WEBHOOK_SINK},
    processes::Processes,
    ready::{self, Ready},
    roster::{self, SERVICES, Service},
    servers::{Servers, Wanted},
    settings::{self, Settings},
    sink::Sink,
};
use agentforge_client::rest;
use agentforge_runtime::Signals;
use agentforge_terminal::{Failure, Global, Output, Result};
use clap::builder::{PossibleValue, PossibleValuesParser};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// For everything to be ready; a large store takes a while to recover.
const READY_MAX: Duration = Duration::from_secs(60);
/// Between looks at /readyz.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How the backbone is run here.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help())]
pub struct Args {
    /// Where all data is stored
    #[arg(long, value_name = "DIR", default_value = "./.agentforge")]
    data_dir: PathBuf,
    /// First of the ports; 0 takes free ones [default: the standard ports]
    #[arg(long, value_name = "N")]
    port_base: Option<u16>,
    /// Write a JSON file with addresses and process ids when everything is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Do not run the demo workload
    #[arg(long)]
    no_demo: bool,
    /// Run the services as separate processes
    #[arg(long)]
    processes: bool,
    /// An existing Postgres, instead of SQLite in the data directory
    #[arg(long, value_name = "URL", value_parser = store_url)]
    store: Option<String>,
    /// An existing NATS server, instead of starting one
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// An edge site with a hub: two NATS servers and a link that `agentforge link` cuts and restores
    #[arg(long, conflicts_with = "nats_url")]
    edge: bool,
    /// The site's name
    #[arg(long, value_name = "NAME", default_value = "site-a", requires = "edge", value_parser = site)]
    site: String,
    /// Leave services out: jobs need only orchestrator and worker
    #[arg(long, value_name = "SERVICE,...", value_parser = optional(), value_delimiter = ',')]
    without: Vec<String>,
    /// Jobs the worker runs at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: Option<u32>,
}

fn after_help() -> String {
    format!(
        "\
Examples:
  agentforge dev
  agentforge dev --port-base 0 --no-demo --ready-file ready.json
  agentforge dev --processes --concurrency 64
  agentforge dev --without broadcaster
  agentforge dev --edge                 # a site with a hub; then, elsewhere: agentforge link down
  agentforge dev --store postgres://forge:secret@localhost/forge --nats-url nats://localhost:4222

Ports: {}. In one process the orchestrator's page of metrics is that of all services. With --port-base N the ports \
are, in this order, N to N+{}; with --port-base 0 any free ones.

Ctrl-C drains: the worker finishes what it runs, then orchestrator and NATS stop. A second Ctrl-C exits at once; \
accepted jobs are on disk and continue at the next start.",
        roster::ports_in_words(),
        roster::last_place()
    )
}

/// The services that jobs run without.
fn optional() -> PossibleValuesParser {
    let named = |service: &Service| Some(PossibleValue::new(service.name).help(service.optional?));
    PossibleValuesParser::new(SERVICES.iter().filter_map(named))
}

fn store_url(s: &str) -> Result<String, String> {
    let known = ["postgres://", "postgresql://", "sqlite://"].iter().any(|scheme| s.starts_with(scheme));
    if known { Ok(s.to_owned()) } else { Err("is not a postgres:// or sqlite:// URL".to_owned()) }
}

fn site(s: &str) -> Result<String, String> {
    // It is the site's JetStream domain, too, and the hub has one of its own.
    match agentforge_message_id::Site::new(s) {
        Ok(_) if s == settings::HUB_DOMAIN => Err("is the hub's own name".to_owned()),
        Ok(_) => Ok(s.to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

impl Args {
    fn without(&self) -> Vec<&'static str> {
        self.without.iter().filter_map(|name| Some(roster::find(name)?.name)).collect()
    }

    fn servers(&self) -> Wanted<'_> {
        match &self.nats_url {
            Some(url) => Wanted::External(url),
            None if self.edge => Wanted::Edge(&self.site),
            None => Wanted::Own,
        }
    }
}

/// The services, one way or the other.
enum Services {
    InProcess(InProcess),
    Processes(Processes),
}

struct Stack {
    settings: Settings,
    servers: Servers,
    services: Services,
    changed: Arc<Notify>,
}

/// Runs until it is asked to stop.
///
/// # Errors
/// Something could not start, failed while running, or did not drain.
pub async fn run(args: Args, global: &Global, out: Output) -> Result {
    let began = Instant::now();
    let signals = Signals::install().map_err(|e| Failure::new(format!("signals cannot be handled: {e}")))?;
    if let Some(path) = &args.ready_file {
        ready::remove(path);
    }
    let ports = Ports::plan(args.port_base, roster::last_place())?;
    let data = DataDir::open(&args.data_dir)?;
    let own_nats = args.nats_url.is_none();
    ports.check(roster::ports(&args.without(), own_nats, args.processes, args.edge))?;
    let place = demo::Place::here()?;
    let stack = tokio::select! {
        stack = start(&args, ports, &data, &place) => stack?,
        _ = signals.first() => {
            out.note("stopped before everything was up");
            return Ok(());
        }
    };
    let outcome = serve(&args, &stack_ready(&stack), stack, began, global, &place, &data, &signals, out).await;
    if let Some(path) = &args.ready_file {
        ready::remove(path);
    }
    outcome
}

async fn start(args: &Args, ports: Ports, data: &DataDir, place: &demo::Place) -> Result<Stack> {
    let changed = Arc::new(Notify::new());
    let servers = Servers::start(args.servers(), data.path(), ports, &changed).await?;
    let has_tools_file = std::env::var_os("WORKER_TOOLS_FILE").is_some_and(|v| !v.is_empty());
    let has_sink = roster::ports(&args.without(), false, false, false).any(|port| port == WEBHOOK_SINK);
    let settings = Settings {
        data: data.path().to_owned(),
        nats_url: servers.url().to_owned(),
        hub_url: servers.ready().1.map(|hub| hub.url),
        nats_monitor: servers.ready().0.monitor,
        nats_is_external: args.nats_url.is_some(),
        store: args.store.clone(),
        ports,
        concurrency: args.concurrency.map(|n| n as usize),
        tools: if has_tools_file { None } else { Some(place.write_tools_file(data.path())?) },
        site: args.edge.then(|| args.site.clone()),
        webhook_sink: if has_sink { webhook_sink(ports).await? } else { None },
        without: args.without(),
        verify_keys: verify_keys(data.path())?,
        console: ConsoleStart::new(data.path(), ports, roster::ports_behind())?,
        egress_allow: std::env::var("EGRESS_ALLOW").unwrap_or_default(),
        is_set,
    };
    let services = if args.processes {
        Processes::start(&settings, &changed).await.map(Services::Processes)
    } else {
        InProcess::start(&settings).await.map(Services::InProcess)
    };
    match services {
        Ok(services) => Ok(Stack { settings, servers, services, changed }),
        Err(failure) => {
            servers.stop(|_| {}).await;
            Err(failure)
        }
    }
}

/// The public part of the key that the orchestrator signs with, for its worker: unless the environment names keys.
fn verify_keys(data: &Path) -> Result<Option<String>> {
    if ["SIGNING_KEY_FILE", "VERIFY_KEYS", "VERIFY_KEYS_FILE"].into_iter().any(is_set) {
        return Ok(None);
    }
    let keys = agentforge_orchestrator::keys::dev_verify_keys(data);
    keys.map(Some).map_err(|problem| Failure::new(format!("no key to sign attempts with: {problem}")))
}

fn is_set(key: &str) -> bool {
    std::env::var_os(key).is_some_and(|v| !v.is_empty())
}

/// Somewhere for webhooks to go, unless the environment says where.
async fn webhook_sink(ports: Ports) -> Result<Option<String>> {
    if is_set("WEBHOOK_URL") || is_set("BROADCASTER_ENDPOINTS_FILE") {
        return Ok(None);
    }
    let (address, serve) = Sink::open(ports.of(WEBHOOK_SINK)).await?;
    // It ends with this process.
    tokio::spawn(serve);
    Ok(Some(format!("http://{address}/")))
}

fn stack_ready(stack: &Stack) -> Ready {
    let services = match &stack.services {
        Services::InProcess(s) => s.ready(),
        Services::Processes(s) => s.ready(),
    };
    let (nats, hub) = stack.servers.ready();
    Ready { nats, hub, services }
}

/// From "listens" to "stopped". Regardless of what happens in between, everything is stopped in order.
#[expect(clippy::too_many_arguments, reason = "called once; a struct would only rename them")]
async fn serve(
    args: &Args,
    ready: &Ready,
    mut stack: Stack,
    began: Instant,
    global: &Global,
    place: &demo::Place,
    data: &DataDir,
    signals: &Signals,
    out: Output,
) -> Result {
    let settings = stack.settings.clone();
    let work = async {
        // In this process they have no logs of their own.
        all_ready(ready, args.processes.then(|| data.path().join("logs")).as_deref()).await?;
        if let Some(path) = &args.ready_file {
            ready.write(path)?;
        }
        banner::ready(ready, &settings, began.elapsed(), out)?;
        if !args.no_demo {
            demo::run(place, data.path(), ready, global, out).await;
            evidence::run(&settings, ready, out).await;
        }
        banner::next_steps(ready, &settings, place.has_digest(), out)?;
        let _feed = (!args.no_demo).then(|| feed::start(ready)).flatten();
        std::future::pending::<Result>().await
    };
    tokio::pin!(work);
    let outcome = loop {
        tokio::select! {
            signal = signals.first() => {
                out.note(format!("\n{signal}: draining, a second one exits at once"));
                break Ok(());
            }
            Err(failure) = &mut work => break Err(failure),
            failure = failed(&mut stack.services) => break Err(failure),
            () = stack.changed.notified() => {
                // Before the first write no reader may think that all is ready.
                if let Some(path) = args.ready_file.as_deref().filter(|p| p.exists())
                    && let Err(failure) = stack_ready(&stack).write(path)
                {
                    break Err(failure);
                }
            }
        }
    };
    let stopped = stop(stack, out).await;
    outcome.and(stopped)
}

async fn failed(services: &mut Services) -> Failure {
    match services {
        Services::InProcess(services) => services.failed().await,
        // Processes are restarted by their keepers.
        Services::Processes(_) => std::future::pending().await,
    }
}

async fn all_ready(ready: &Ready, logs: Option<&Path>) -> Result {
    for (name, service) in &ready.services {
        let Some(base) = service.http.as_deref() else { continue };
        let log = logs.map(|logs| logs.join(format!("{name}.log")));
        let mut patience = Patience::new(name, log.as_deref(), READY_MAX);
        while let Err(why) = rest::is_ready(base).await {
            let waited = patience.wait(LOOK_EVERY, &why).await;
            waited.map_err(|e| e.hint("its /readyz names what is missing; is the database or NATS away?"))?;
        }
    }
    Ok(())
}

/// Services, then NATS: each finishes while what it needs is still there.
async fn stop(stack: Stack, out: Output) -> Result {
    let tell = |name: &str| out.note(format!("stopping the {name}"));
    let outcome = match stack.services {
        Services::InProcess(services) => services.stop(tell).await,
        Services::Processes(services) => services.stop(tell).await,
    };
    stack.servers.stop(tell).await;
    if outcome.is_ok() {
        out.note("everything drained");
    }
    outcome
}

//! The syncdaemon as a service: built, run, drained.
//!
//! The only place that wires the parts together. Ready means that files can be taken in and kept: the
//! replay directory is usable and the ledger writable. A link that is down is the normal case of an edge
//! site; it shows in the body of /readyz and holds nothing up there.

use crate::{
    completion::{
        commit::{self, CommitHandle, Record},
        recover::recover,
    },
    config::{self, Config},
    content::read::Rules,
    delivery::{large::LargeSender, publish::HubClient, small::SmallSender, streams::StreamKeeper},
    directory::{Root, separation},
    discovery::{events, scan},
    error::Error,
    ledger::writer,
    metrics,
    progress::{Progress, Status},
    queue::Queue,
    steps,
};
use agentforge_config::{Common, Reader, Setting};
use agentforge_jetstream::{
    HubConfig, HubLink, Nats, NatsConfig, Support,
    topology::{EvidenceConfig, Maker},
};
use agentforge_ledger::{Entry, Event};
use agentforge_metrics::Metric;
use agentforge_runtime::http::{HTTP_PROTOCOLS, for_this_machine};
use agentforge_runtime::{
    Endpoints, Gate, OnEnd, Runtime, Service, Tls, admin_router, bind, serve_https, serve_metrics,
};
use async_trait::async_trait;
use axum::{Json, Router, extract::State, routing::get};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Between two updates of gauges, and at whether the replay directory is still there.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
/// What is kept of the grace for writing the ledger and removing what was acknowledged.
const LEDGER_DRAIN_MAX: Duration = Duration::from_secs(3);
/// For emptying the connection, however late it is.
const CLOSE_MIN: Duration = Duration::from_secs(1);

/// The syncdaemon as a service: what was opened before it runs.
pub struct Syncdaemon {
    config: Config,
    runtime: Runtime,
    parts: Parts,
    writer: writer::Writer,
    torn_bytes: u64,
    root: Arc<Root>,
    listener: TcpListener,
    tls: Option<Tls>,
    endpoints: Endpoints,
}

/// What most tasks share.
#[derive(Clone)]
struct Parts {
    nats: Nats,
    queue: Arc<Queue>,
    progress: Arc<Progress>,
}

#[async_trait]
impl Service for Syncdaemon {
    const NAME: &'static str = "syncdaemon";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![
            ("Syncdaemon", config::SETTINGS.to_vec()),
            ("Evidence", EvidenceConfig::SETTINGS.to_vec()),
            ("Topology", Maker::SETTINGS.to_vec()),
            ("NATS", NatsConfig::SETTINGS.to_vec()),
            ("Common", Common::SETTINGS.to_vec()),
        ]
    }

    fn read_config(reader: &mut Reader<'_>) -> Config {
        Config::read(reader)
    }

    fn common(config: &Config) -> &Common {
        &config.common
    }

    fn metrics() -> Vec<&'static [Metric]> {
        vec![metrics::METRICS, agentforge_jetstream::metrics::CATALOGUE]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        steps::arm(config.common.is_dev());
        let listener = bind(config.common.listen(config.http_port), "HTTP_PORT").await?;
        let http = Some(listener.local_addr()?);
        let tls = Tls::of(&runtime, &config.common, HTTP_PROTOCOLS)?;
        // Closed before the first question: what is ready for a moment at the start gets callers.
        runtime.readiness().gate("ledger", true);
        let metrics = serve_metrics(&runtime, &config.common).await?;
        let ledger_failed = |source| Error::Ledger { path: config.ledger_dir.clone(), source };
        let (writer, torn_bytes) = writer::Writer::open(&config.ledger_dir).map_err(ledger_failed)?;
        let queue_failed = |source| Error::QueueDir { path: config.queue_dir.clone(), source };
        let root = Arc::new(Root::open(&config.queue_dir, true).map_err(queue_failed)?);
        // Both are there now, and may have been made through a link that was not there before.
        if let Some(problem) = separation::problem(&config.queue_dir, &config.ledger_dir) {
            return Err(Error::NotApart(problem).into());
        }
        let nats = Nats::connect(&config.nats, &format!("syncdaemon {}", config.site)).await?;
        let progress = Arc::new(Progress::new(
            &config.site,
            runtime.readiness().gate("delivery", false),
            runtime.readiness().gate("removal", false),
        ));
        progress.ledger_ends_with(writer.end());
        let parts = Parts { nats, queue: Arc::default(), progress };
        let is_tls = tls.is_some();
        let endpoints = Endpoints { http, grpc: None, metrics, is_tls, is_metrics_tls: is_tls };
        Ok(Self { config, runtime, parts, writer, torn_bytes, root, listener, tls, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        let Self { config, runtime, parts, writer, torn_bytes, root, listener, tls, .. } = self;
        let stop = runtime.stopping();
        let (router, grace) = (router(&config, &runtime, &parts), runtime.grace());
        let http = {
            let stop = stop.clone();
            async move { Ok(serve_https(listener, tls, router, stop, grace).await?) }
        };
        runtime.supervisor().spawn("http", OnEnd::Stop, http);

        let ledger_gate = runtime.readiness().gate("ledger", true);
        let (commits, committer, remover) =
            commit::start(writer, &parts.progress, &parts.queue, ledger_gate, config.linger);
        let committer_ended = thread(&runtime, "ledger", move || committer.run())?;
        let remover_ended = thread(&runtime, "remover", move || remover.run())?;
        begin_ledger(&config, &commits, &parts.queue, torn_bytes, &root).await?;
        parts.queue.set_root(Some(root));
        spawn_finders(&config, &runtime, &parts)?;

        let hub = HubConfig { domain: config.domain.clone() };
        let link = HubLink::start(parts.nats.clone(), &hub);
        let bucket = spawn_watchers(&config, &runtime, &parts, &commits, &link);
        let senders = spawn_senders(&config, &runtime, &parts, commits, link.up(), bucket);
        info!(site = %config.site, dir = %config.queue_dir.display(), subject = config.subject, "delivering evidence");

        stop.cancelled().await;
        for ended in senders {
            let _ = ended.await;
        }
        // The senders' handles are gone with them: the ledger writes what it has, then the remover ends.
        let deadline = runtime.drain_deadline();
        let drained = timeout_at(deadline, async { (committer_ended.await, remover_ended.await) }).await.is_ok();
        parts.queue.stop();
        drop(link);
        let close_by = deadline.max(Instant::now() + CLOSE_MIN);
        let closed = matches!(timeout_at(close_by, parts.nats.drain()).await, Ok(Ok(())));
        info!(drained, closed, left = parts.queue.depth(), "undelivered files stay in the replay directory");
        Ok(())
    }
}

/// The first lines, and what a crash left in `.sent`. Before any file is searched for.
async fn begin_ledger(
    config: &Config,
    commits: &CommitHandle,
    queue: &Queue,
    torn_bytes: u64,
    root: &Arc<Root>,
) -> Result<(), anyhow::Error> {
    let version = env!("CARGO_PKG_VERSION");
    let detail = format!("syncdaemon {version}, site {}, subject {}", config.site, config.subject);
    commits.record(Record::Note(Entry::note(Event::Startup, detail))).await;
    if torn_bytes > 0 {
        warn!(torn_bytes, "the ledger's last line was incomplete; cut off");
        commits.record(Record::Note(writer::torn_note(torn_bytes))).await;
    }
    let (root, dir, linger) = (root.clone(), config.ledger_dir.clone(), config.linger);
    let recovered = tokio::task::spawn_blocking(move || recover(&root, &dir, linger)).await?;
    let found = recovered.map_err(|source| Error::QueueDir { path: config.queue_dir.clone(), source })?;
    queue.adopt_sent(found.lingering);
    if let Some(note) = found.note {
        info!(detail = note.detail, "recovered");
        commits.record(Record::Note(note)).await;
    }
    Ok(())
}

/// The threads that find files.
fn spawn_finders(config: &Config, runtime: &Runtime, parts: &Parts) -> Result<(), Error> {
    let (watches, hints) = events::start(&parts.queue);
    let (settle, every, empty_after) = (config.settle, config.rescan, config.empty_dirs_after);
    let queue = parts.queue.clone();
    thread(runtime, "scanner", move || scan::run(&queue, &watches, settle, every, empty_after))?;
    thread(runtime, "hints", move || events::run(&hints, settle))?;
    let queue = parts.queue.clone();
    thread(runtime, "census", move || scan::count(&queue))?;
    Ok(())
}

/// The tasks that watch directory, gauges, link and stream. Reports when the stream exists.
fn spawn_watchers(
    config: &Config,
    runtime: &Runtime,
    parts: &Parts,
    commits: &CommitHandle,
    link: &HubLink,
) -> watch::Receiver<bool> {
    let (supervisor, readiness, stop) = (runtime.supervisor(), runtime.readiness(), runtime.stopping());
    let gate = readiness.gate("queue_dir", true);
    gate.set(true, "usable");
    supervisor.spawn("keeper", OnEnd::Stop, supervise_directory(parts.clone(), config.clone(), gate, stop.clone()));
    let gate = readiness.gate("link", false);
    let (link_parts, up) = (parts.clone(), link.up());
    supervisor.spawn("link", OnEnd::Stop, report_link(link_parts, commits.clone(), up, gate, stop.clone()));
    let (is_ready, bucket) = watch::channel(false);
    let ensurer = StreamKeeper {
        config: config.clone(),
        nats: parts.nats.clone(),
        gate: readiness.gate("stream", false),
        progress: parts.progress.clone(),
        is_ready,
    };
    supervisor.spawn("evidence-stream", OnEnd::Stop, ensurer.run(link.up(), stop));
    bucket
}

/// The senders; each future resolves when its sender has ended.
fn spawn_senders(
    config: &Config,
    runtime: &Runtime,
    parts: &Parts,
    commits: CommitHandle,
    link: watch::Receiver<bool>,
    bucket: watch::Receiver<bool>,
) -> [oneshot::Receiver<()>; 2] {
    let hub = Arc::new(HubClient::new(parts.nats.clone(), config, parts.progress.clone()));
    let rules = Rules { whole_max_bytes: 0, file_max_bytes: config.max_file_bytes, settle: config.settle };
    let (to_large, large_files) = mpsc::channel(1);
    let (queue, progress) = (parts.queue.clone(), parts.progress.clone());
    let large = LargeSender {
        hub: hub.clone(),
        queue: queue.clone(),
        commits: commits.clone(),
        progress: progress.clone(),
        rules,
        bucket: bucket.clone(),
        stop: runtime.stopping(),
    };
    let sender = SmallSender {
        hub,
        queue,
        commits,
        progress,
        large: to_large,
        link,
        bucket,
        max_inflight: config.max_inflight,
        rules,
    };
    let (stop, until) = (runtime.stopping(), runtime.clone());
    let landed = move || until.drain_deadline() - LEDGER_DRAIN_MAX.min(until.grace() / 2);
    let (sender_ends, sender_ended) = oneshot::channel();
    runtime.supervisor().spawn("sender", OnEnd::Stop, async move {
        sender.run(stop, landed).await;
        let _ = sender_ends.send(());
        Ok(())
    });
    let (large_ends, large_ended) = oneshot::channel();
    runtime.supervisor().spawn("large-files", OnEnd::Stop, async move {
        large.run(large_files).await;
        let _ = large_ends.send(());
        Ok(())
    });
    [sender_ended, large_ended]
}

/// Starts a thread; its end is watched as a task's. Resolves when it has ended.
fn thread(
    runtime: &Runtime,
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<oneshot::Receiver<()>, Error> {
    let (ends, ended) = oneshot::channel();
    let (confirm, confirmed) = oneshot::channel();
    let scope = runtime.scope();
    let work = move || {
        let _in_scope = scope.enter();
        work();
        let _ = ends.send(());
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|source| Error::Thread { name, source })?;
    runtime.supervisor().spawn(name, OnEnd::Stop, async move {
        let ended = ended.await;
        let _ = confirm.send(());
        Ok(ended.map_err(|_| Error::Panicked(name))?)
    });
    Ok(confirmed)
}

/// Keeps the gauges up to date and supervises the replay directory: taken away, it is waited for; made
/// again, it is taken up.
async fn supervise_directory(
    parts: Parts,
    config: Config,
    gate: Gate,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let mut tick = interval(TICK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => {
                parts.queue.stop();
                return Ok(());
            }
        }
        parts.progress.tick(&parts.queue);
        let (queue, config) = (parts.queue.clone(), config.clone());
        let usable = tokio::task::spawn_blocking(move || check_directory(&queue, &config)).await?;
        match usable {
            Ok(()) => gate.set(true, "usable"),
            Err(error) => gate.set(false, format!("it cannot be used: {error}")),
        }
    }
}

fn check_directory(queue: &Queue, config: &Config) -> std::io::Result<()> {
    match queue.root().map(|root| root.check()) {
        Some(Ok(())) => return Ok(()),
        Some(Err(error)) => {
            error!(%error, "replay directory unavailable; retrying");
            queue.set_root(None);
        }
        None => {}
    }
    let root = Arc::new(Root::open(&config.queue_dir, false)?);
    info!("replay directory available again");
    let found = recover(&root, &config.ledger_dir, config.linger)?;
    queue.adopt_sent(found.lingering);
    queue.set_root(Some(root));
    queue.want_full_scan();
    Ok(())
}

/// Reports the link in the ledger and on /readyz.
async fn report_link(
    parts: Parts,
    commits: CommitHandle,
    mut up: watch::Receiver<bool>,
    gate: Gate,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let mut was = None;
    loop {
        let is_up = *up.borrow_and_update();
        parts.progress.link_up.store(is_up, Relaxed);
        match (is_up, parts.nats.support()) {
            (false, _) => gate.set(false, "the hub does not answer"),
            (true, Support::Tried) => gate.set(true, "the hub answers"),
            (true, other) => gate.set(other.is_usable(), format!("the hub answers; {other}")),
        }
        // A daemon that starts has not lost anything: only what was there can be missed.
        let event = match (was, is_up) {
            (_, true) if was != Some(true) => Some(Event::Connected),
            (Some(true), false) => Some(Event::Disconnected),
            _ => None,
        };
        if let Some(event) = event {
            let detail = if is_up { "the hub answers" } else { "the hub does not answer" };
            tokio::select! {
                () = commits.record(Record::Note(Entry::note(event, detail))) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
        was = Some(is_up);
        tokio::select! {
            changed = up.changed() => changed?,
            () = stop.cancelled() => return Ok(()),
        }
    }
}

#[derive(Clone)]
struct Page {
    blank: Status,
    parts: Parts,
}

fn router(config: &Config, runtime: &Runtime, parts: &Parts) -> Router {
    let blank = Status {
        site: config.site.to_string(),
        queue_dir: config.queue_dir.display().to_string(),
        ledger_dir: config.ledger_dir.display().to_string(),
        subject: config.subject.clone(),
        domain: config.domain().map(str::to_owned),
        ..Status::default()
    };
    let page = Page { blank, parts: parts.clone() };
    let status = Router::new().route("/status", get(status)).with_state(page);
    admin_router(runtime).merge(for_this_machine(status))
}

async fn status(State(page): State<Page>) -> Json<Status> {
    let mut status = page.blank;
    page.parts.progress.fill(&mut status, &page.parts.queue);
    Json(status)
}

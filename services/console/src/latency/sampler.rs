//! The loop that probes, and the change of targets while it runs.

use super::board::{Board, Source, View};
use super::persist;
use super::probe::Prober;
use super::recent::Recent;
use super::settings::LatencyConfig;
use super::targets::Target;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Probes under way at once: 64 targets that all hang take two timeouts, which the interval holds.
const CONCURRENCY: usize = 32;

/// Why targets were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The caller's fault, in words.
    #[error("{0}")]
    Refused(String),
    /// They could not be written down. Nothing has changed.
    #[error("write {}", persist::FILE)]
    File(#[from] std::io::Error),
}

struct Inner {
    config: LatencyConfig,
    board: Board,
    recent: Arc<Recent>,
    prober: watch::Sender<Arc<Prober>>,
    /// One change at a time: file and memory must say the same.
    changing: Mutex<()>,
}

/// The sampler. Clones share it.
#[derive(Clone)]
pub struct Latency(Arc<Inner>);

impl Latency {
    /// Decides what is sampled: the file of the API if it names a target, else the settings. Probes nothing yet.
    ///
    /// # Errors
    /// LATENCY_SAMPLE_CA_FILE cannot be used.
    pub fn new(config: LatencyConfig, recent: Arc<Recent>) -> Result<Self, String> {
        let file = persist::path(&config.data_dir);
        let persisted = persist::read(&file).and_then(|targets| config.allow.check_all(&targets).map(|()| targets));
        let persisted = persisted.unwrap_or_else(|problem| {
            warn!(problem, "targets of the file not used; those of the settings are");
            Vec::new()
        });
        let (targets, source) =
            if persisted.is_empty() { (config.targets.clone(), Source::Env) } else { (persisted, Source::Persisted) };
        let prober = Prober::new(&targets, config.ca_file.as_ref(), config.timeout)?;
        let (prober, _) = watch::channel(Arc::new(prober));
        announce(&recent, source, targets.len());
        let board = Board::new(targets, source);
        Ok(Self(Arc::new(Inner { config, board, recent, prober, changing: Mutex::default() })))
    }

    /// What is known, with the newest `samples` of each service.
    pub fn view(&self, samples: usize) -> View {
        self.0.board.view(samples)
    }

    /// What happened lately.
    pub fn recent(&self) -> &Recent {
        &self.0.recent
    }

    /// Replaces the targets, in the file too if asked: then they hold after a restart. No targets at all means those of
    /// the settings. Says what holds now.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn change(&self, targets: Vec<Target>, persist: bool) -> Result<(Arc<[Target]>, Source), ChangeError> {
        let inner = self.0.clone();
        inner.config.allow.check_all(&targets).map_err(ChangeError::Refused)?;
        let _one = inner.changing.lock().await;
        if persist {
            let (file, written) = (persist::path(&inner.config.data_dir), targets.clone());
            let write = tokio::task::spawn_blocking(move || persist::write(&file, &written));
            write.await.unwrap_or_else(|e| Err(std::io::Error::other(e)))?;
        }
        let (targets, source) = match (targets.is_empty(), persist) {
            (true, _) => (inner.config.targets.clone(), Source::Env),
            (false, true) => (targets, Source::Persisted),
            (false, false) => (targets, Source::Env),
        };
        let prober = Prober::new(&targets, inner.config.ca_file.as_ref(), inner.config.timeout);
        let prober = prober.map_err(ChangeError::Refused)?;
        announce(&inner.recent, source, targets.len());
        inner.board.replace(targets, source);
        inner.prober.send_replace(Arc::new(prober));
        Ok(inner.board.targets())
    }

    /// Probes, round after round, until `stop`. New targets are probed at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.0.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut changed = self.0.prober.subscribe();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                Ok(()) = changed.changed() => ticks.reset(),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.round() => {}
            }
        }
    }

    /// Asks every target once.
    async fn round(&self) {
        let prober = self.0.prober.borrow().clone();
        let free = Arc::new(Semaphore::new(CONCURRENCY));
        let mut probes = JoinSet::new();
        for target in prober.targets() {
            let (target, prober, free, latency) = (target.clone(), prober.clone(), free.clone(), self.clone());
            probes.spawn(async move {
                let _place = free.acquire().await.expect("the semaphore is never closed");
                let sample = prober.probe(&target).await;
                latency.0.board.record(&target, sample);
            });
        }
        while probes.join_next().await.is_some() {}
    }
}

fn announce(recent: &Recent, source: Source, count: usize) {
    info!(source = source.as_str(), count, "latency targets set");
    recent.add("latency.targets.init", json!({"source": source, "count": count}));
}

//! One collection of all servers, shared by the scrapes that ask while it runs.
//!
//! A scrape gets the result of a collection that began when it arrived, or up to a second before and was still running;
//! a finished one is never used again. Servers are asked in parallel and fail separately: what one does not report by
//! the deadline is missing, and its own series show that.

use crate::{
    client::{Client, Reason},
    config::Config,
    endpoint::Endpoint,
    jsz, metrics,
    scrape::{self, Found, Outcome},
    snapshot::Snapshot,
    table::Table,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::{info, warn};

/// A collection is joined when it began no longer ago: of one that waits for a server that hangs, the
/// others' values are older than a new scrape may take them for.
const JOIN_MAX: Duration = Duration::from_secs(1);

/// Makes collections, and lets scrapes share one that has just begun.
pub struct Collector {
    config: Arc<Config>,
    client: Client,
    running: Mutex<Option<Running>>,
    /// What failed at last, so that a change is logged and its repetition is not.
    failing: Mutex<HashMap<(usize, Endpoint), Reason>>,
}

#[derive(Clone)]
struct Running {
    began: Instant,
    deadline: Instant,
    result: watch::Receiver<Option<Arc<Snapshot>>>,
}

impl Collector {
    /// Nothing is asked yet.
    pub fn new(config: Arc<Config>, client: Client) -> Arc<Self> {
        for endpoint in &config.endpoints {
            metrics::SERIES_DROPPED.add(&[endpoint.as_str()], 0);
            config.targets.iter().for_each(|target| metrics::SCRAPE_ERRORS.begin(&[&target.id, endpoint.as_str()]));
        }
        Arc::new(Self { config, client, running: Mutex::default(), failing: Mutex::default() })
    }

    /// What the servers say now, or what they have said by `deadline`. `None` if the collection was
    /// lost, which is a defect.
    pub async fn collect(self: &Arc<Self>, deadline: Instant) -> Option<Arc<Snapshot>> {
        let mut running = self.join_or_start(deadline);
        let result = running.result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }

    fn join_or_start(self: &Arc<Self>, deadline: Instant) -> Running {
        let mut slot = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose deadline is later than this scrape's could come too late for it.
        let usable = |running: &&Running| {
            let is_new = running.began.elapsed() <= JOIN_MAX && running.result.borrow().is_none();
            is_new && running.deadline <= deadline
        };
        if let Some(running) = slot.as_ref().filter(usable)
            && running.result.has_changed().is_ok()
        {
            return running.clone();
        }
        let (sender, result) = watch::channel(None);
        let collector = self.clone();
        // Ends by its deadline on its own; scrapes that go away do not end what others wait for.
        tokio::spawn(async move {
            let snapshot = collector.run(deadline).await;
            let _ = sender.send(Some(Arc::new(snapshot)));
            collector.forget_finished();
        });
        let running = Running { began: Instant::now(), deadline, result };
        *slot = Some(running.clone());
        running
    }

    /// Its numbers live on with the scrapes that waited for it, and no longer.
    fn forget_finished(&self) {
        let mut slot = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|running| running.result.borrow().is_some()) {
            *slot = None;
        }
    }

    async fn run(&self, deadline: Instant) -> Snapshot {
        let mut tasks = JoinSet::new();
        for (index, target) in self.config.targets.iter().enumerate() {
            let (client, config, target) = (self.client.clone(), self.config.clone(), target.clone());
            tasks.spawn(async move { (index, scrape::server(&client, &config, &target, deadline).await) });
        }
        let mut all: Vec<(usize, Found)> = Vec::with_capacity(self.config.targets.len());
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(found) => all.push(found),
                Err(error) => tracing::error!(%error, "a server could not be asked; its series are missing"),
            }
        }
        all.sort_by_key(|(index, _)| *index);
        self.forget_duplicates(&mut all);
        self.put_together(all)
    }

    /// Two targets can be one server when its own id is used; its rows must not appear twice.
    fn forget_duplicates(&self, all: &mut [(usize, Found)]) {
        let mut seen = BTreeSet::new();
        for (_, found) in all {
            if seen.insert(found.server_id.clone()) {
                continue;
            }
            let outcomes = found.outcomes.iter().map(|o| Outcome { result: Err(Reason::DuplicateServer), ..*o });
            *found = Found { outcomes: outcomes.collect(), ..Found::default() };
        }
    }

    /// The order is that in which series stay when there are too many.
    fn put_together(&self, all: Vec<(usize, Found)>) -> Snapshot {
        let mut tables = Vec::new();
        for (index, found) in &all {
            let id = &self.config.targets[*index].id;
            self.note(*index, id, &found.outcomes);
            if self.config.self_metrics {
                tables.extend(own_tables(id, &found.outcomes, self.client.expiry(id)));
            }
        }
        let (mut stock, mut claims) = (Vec::new(), Vec::new());
        for (_, found) in all {
            tables.extend(found.core);
            stock.extend(found.stock);
            claims.extend(found.claims.map(|claims| *claims));
        }
        let (compact, foreign) = jsz::settle(claims);
        tables.extend(compact);
        tables.extend(stock);
        let (snapshot, mut dropped) = Snapshot::new(tables, self.config.series_max);
        if foreign > 0 {
            *dropped.entry(Endpoint::Jsz).or_default() += foreign;
        }
        for (endpoint, count) in dropped {
            metrics::SERIES_DROPPED.add(&[endpoint.as_str()], count);
        }
        snapshot
    }

    fn note(&self, index: usize, id: &str, outcomes: &[Outcome]) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        for Outcome { endpoint, result, .. } in outcomes {
            match result {
                Ok(()) => {
                    if failing.remove(&(index, *endpoint)).is_some() {
                        info!(server_id = id, endpoint = endpoint.as_str(), "the endpoint can be read again");
                    }
                }
                Err(reason) => {
                    metrics::SCRAPE_ERRORS.inc(&[id, endpoint.as_str(), reason.as_str()]);
                    if failing.insert((index, *endpoint), *reason) != Some(*reason) {
                        let (endpoint, reason) = (endpoint.as_str(), reason.as_str());
                        warn!(server_id = id, endpoint, reason, "the endpoint cannot be read; its series are missing");
                    }
                }
            }
        }
    }
}

/// What a scrape reports about a server's endpoints.
fn own_tables(id: &str, outcomes: &[Outcome], expiry: Option<i64>) -> Vec<Table> {
    let is_up = f64::from(u8::from(outcomes.iter().all(|outcome| outcome.result.is_ok())));
    let up = metrics::column(&metrics::TARGET_UP);
    let columns = metrics::columns(&[metrics::SCRAPE_SUCCESS, metrics::SCRAPE_DURATION]);
    let mut each = Table::new(Endpoint::Varz, columns, outcomes.len());
    for outcome in outcomes {
        let is_read = f64::from(u8::from(outcome.result.is_ok()));
        let labels = [("server_id", id), ("endpoint", outcome.endpoint.as_str())];
        each.push(&labels, &[is_read, outcome.took.as_secs_f64()]);
    }
    let mut tables = vec![Table::single(Endpoint::Varz, vec![up], &[("server_id", id)], &[is_up]), each];
    if let Some(expiry) = expiry {
        let column = metrics::column(&metrics::TARGET_CERTIFICATE);
        tables.push(Table::single(Endpoint::Varz, vec![column], &[("server_id", id)], &[expiry as f64]));
    }
    tables
}

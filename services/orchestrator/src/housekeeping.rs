//! Small loops that keep gauges true and readiness honest.

use crate::app::{App, OutboxGauge};
use crate::clock::Steps;
use crate::metrics;
use crate::reconcile::pause;
use crate::store::CommitContext;
use agentforge_jetstream::Nats;
use agentforge_proto::time::Micros;
use agentforge_runtime::Gate;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How often the database is asked whether it is there and takes writes.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const PING_MAX: Duration = Duration::from_secs(3);
/// Between two searches for schedules that are due.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
/// How often jobs that are watched here are compared with what other replicas committed.
const REPLICA_INTERVAL: Duration = Duration::from_millis(250);
/// Watched jobs compared in one query.
const REPLICA_CHUNK: usize = 1_000;

/// Keeps the readiness gates for database and NATS, and the bound on args.
pub async fn health_loop(
    app: App,
    nats: Nats,
    database: Gate,
    link: Gate,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let place = app.database();
    let mut logged = String::new();
    loop {
        let problem = match tokio::time::timeout(PING_MAX, app.check_database()).await {
            Ok(Ok(())) => String::new(),
            Ok(Err(e)) => format!("{place}: {} (DATABASE_URL)", e.chain()),
            Err(_) => format!("{place}: takes no write within {} s (DATABASE_URL)", PING_MAX.as_secs()),
        };
        if problem.is_empty() {
            database.set(true, place.clone());
        } else {
            metrics::DB_ERRORS.inc(&[]);
            database.set(false, problem.clone());
        }
        if problem != logged {
            if problem.is_empty() {
                info!(place, "the database takes writes again")
            } else {
                error!(problem, "the database takes no writes; submissions are refused")
            }
            logged = problem;
        }
        match nats.trouble() {
            None => {
                let (usable, words) = nats.readiness();
                link.set(usable, words);
            }
            Some(trouble) => link.set(false, format!("{}; accepted jobs wait in the database", trouble.reason)),
        }
        if nats.is_connected() {
            app.set_max_payload(nats.client().server_info().max_payload);
        }
        if !pause(&stop, PING_INTERVAL).await {
            return Ok(());
        }
    }
}

/// A count may take this share of the time: one of a million jobs takes some 30 ms.
const COUNT_SHARE: u32 = 50;
/// Longest time between two counts.
const COUNT_SELDOM: Duration = Duration::from_secs(60);

/// Counts in a row that are not taken because jobs came or went meanwhile.
const MISSED_MAX: u32 = 3;

/// Counts what waits in the store: delayed jobs become due by themselves, and other replicas write too.
pub async fn outbox_loop(app: App, gauge: OutboxGauge, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let (mut count_at, mut missed) = (tokio::time::Instant::now(), 0_u32);
    loop {
        let begun = tokio::time::Instant::now();
        if begun >= count_at {
            let moment = gauge.moment();
            if let Ok(waiting) = app.waiting().await {
                // Where jobs come and go all the time a few more or less are no matter.
                if gauge.is_still(moment) || missed >= MISSED_MAX {
                    gauge.set(waiting);
                    missed = 0;
                } else {
                    missed += 1;
                }
            }
            count_at = begun + (begun.elapsed() * COUNT_SHARE).min(COUNT_SELDOM);
            if let Ok(parked) = app.parked_count().await {
                metrics::OUTBOX_PARKED.set(&[], parked as f64);
            }
        }
        metrics::OUTBOX.set(&[], gauge.get() as f64);
        metrics::OUTBOX_LIMIT.set(&[], gauge.max() as f64);
        metrics::SCHEDULED.set(&[], gauge.later() as f64);
        if !pause(&stop, Duration::from_secs(1)).await {
            return Ok(());
        }
    }
}

/// What waits in each queue, counted for a scrape.
pub struct Depths {
    app: App,
    /// Missions and queues that have a series; a series cannot be taken back.
    shown: Mutex<HashSet<(String, String)>>,
}

impl Depths {
    /// Nothing is counted yet.
    pub fn new(app: App) -> Arc<Self> {
        Arc::new(Self { app, shown: Mutex::default() })
    }

    /// Counts and exports; what the store does not report stays unchanged.
    pub async fn count(self: Arc<Self>) {
        let now = Micros::now();
        let Ok(depths) = self.app.depths(now).await else { return };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *shown);
        for d in depths {
            let queue = (
                metrics::mission_label(d.mission.as_str()).to_owned(),
                metrics::queue_label(d.queue.as_str()).to_owned(),
            );
            metrics::OLDEST_PENDING.set(&[&queue.0, &queue.1], now.since(d.oldest).as_secs_f64());
            metrics::PENDING.set(&[&queue.0, &queue.1], d.pending as f64);
            gone.remove(&queue);
            shown.insert(queue);
        }
        for (mission, queue) in gone {
            metrics::OLDEST_PENDING.set(&[&mission, &queue], 0.0);
            metrics::PENDING.set(&[&mission, &queue], 0.0);
            shown.insert((mission, queue));
        }
    }
}

/// Everything of a commit but its moment.
#[derive(Clone)]
pub struct Ticking {
    /// Retry waits, owner, events, claims.
    pub committer: crate::app::CommitterConfig,
}

/// Makes the jobs of schedules.
pub async fn schedule_loop(app: App, t: Ticking, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let mut steps = Steps::begin();
    // A step made while no process ran was not seen.
    let (mut rewind, mut seen) = (true, false);
    while pause(&stop, TICK_INTERVAL).await {
        let now = Micros::now();
        if steps.check(now, Instant::now()).is_some() {
            (rewind, seen) = (true, true);
        }
        if rewind {
            match app.rewind_schedules(now, seen).await {
                Ok(_) => (rewind, seen) = (false, false),
                Err(e) => {
                    warn!(error = &e as &dyn std::error::Error, "schedules do not follow the clock yet; trying again");
                }
            }
        }
        let ctx = CommitContext {
            now,
            backoff: &t.committer.backoff,
            owner: &t.committer.owner,
            claim_until: now.plus(t.committer.claim_for),
            events: t.committer.events,
            mission: &t.committer.mission,
        };
        match app.tick_schedules(now, ctx).await {
            Ok(fired) => metrics::SCHEDULES_FIRED.add(&[], fired as u64),
            Err(e) => warn!(error = &e as &dyn std::error::Error, "schedules could not be read; trying again"),
        }
    }
    Ok(())
}

/// Notifies watchers of this replica about commits of other replicas.
pub async fn replica_loop(app: App, stop: CancellationToken) -> Result<(), anyhow::Error> {
    if !app.has_replicas() {
        stop.cancelled().await;
        return Ok(());
    }
    while pause(&stop, REPLICA_INTERVAL).await {
        let watched = app.watchers().watched(crate::app::WATCHES_MAX_DEFAULT);
        for ids in watched.chunks(REPLICA_CHUNK) {
            let Ok(known) = app.versions(ids).await else { continue };
            for (id, _, version) in known {
                app.watchers().changed(id, version);
            }
        }
    }
    Ok(())
}

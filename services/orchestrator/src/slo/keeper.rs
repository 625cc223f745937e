//! Keeps the objectives: checks every second, stores every few, judges, and shows the judgement.
//!
//! The store has the truth; a process adds what it saw and reads what others did. What cannot be stored
//! waits in memory, for as long as the window lasts at most.

use super::{Bucket, Judgement, Objective, Observer, Unit, WINDOW_MINUTES, Window, judge, minute_of};
use crate::app::App;
use crate::metrics;
use crate::store;
use agentforge_proto::time::Micros;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Checks between two stores and judgements.
const STORE_AFTER: u32 = 10;
/// Between two counts of finished jobs: a count reads every job of the last two minutes.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// Minutes read again each time: what other replicas write late.
const RECENT_MINUTES: i64 = 15;
/// Between two readings of the whole window, for what came later still.
const REREAD_EVERY: Duration = Duration::from_secs(600);
/// Minutes of jobs counted at once after a long absence.
const COUNT_MINUTES_MAX: i64 = 60;

/// The result of a check: whether the service is up, or `None` when it is unknown.
pub type Sight = Box<dyn Fn() -> Option<bool> + Send + Sync>;

/// Keeps one list of objectives.
pub struct Keeper {
    app: App,
    kept: Vec<Kept>,
    counted_to: Option<i64>,
    read_at: Option<Instant>,
    counted_at: Option<Instant>,
}

struct Kept {
    objective: Objective,
    key: String,
    window: Window,
    observed: Option<(Observer, Sight)>,
    has_judgement: bool,
}

impl Keeper {
    /// Keeps `objectives`; `sights` are by service, for those that are measured in seconds.
    pub fn new(app: &App, objectives: Vec<Objective>, mut sights: BTreeMap<&'static str, Sight>) -> Self {
        let keep = |objective: Objective| Kept {
            key: objective.key(),
            window: Window::new(objective.unit),
            observed: sights
                .remove(objective.service)
                .filter(|_| objective.unit == Unit::Seconds)
                .map(|sight| (Observer::default(), sight)),
            objective,
            has_judgement: false,
        };
        let kept: Vec<Kept> = objectives.into_iter().map(keep).collect();
        for kept in kept.iter().filter(|kept| kept.observed.is_some()) {
            metrics::SLA_UPTIME.add(&[kept.objective.service], 0);
            metrics::SLA_DOWNTIME.add(&[kept.objective.service], 0);
        }
        Self { app: app.clone(), kept, counted_to: None, read_at: None, counted_at: None }
    }

    /// Runs until `stop` fires, and stores what it saw last.
    ///
    /// # Errors
    /// None; the type is that of tasks.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first turn comes soon, so that a start is judged soon.
        let mut checks = STORE_AFTER - 2;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => break,
            }
            self.check(Micros::now());
            checks += 1;
            if checks >= STORE_AFTER {
                checks = 0;
                self.turn().await;
            }
        }
        if let Err(error) = self.store_seen().await {
            warn!(
                error = &error as &dyn std::error::Error,
                "the last seconds observed are not stored; they stay unknown"
            );
        }
        Ok(())
    }

    /// One check of every service. A drain is not a failure: nothing is observed during it.
    fn check(&mut self, now: Micros) {
        let second = now.0.div_euclid(1_000_000);
        for kept in &mut self.kept {
            let Some((observer, sight)) = &mut kept.observed else { continue };
            let up = sight();
            let seconds = u64::try_from(observer.record(second, up)).unwrap_or_default();
            match up {
                Some(true) => metrics::SLA_UPTIME.add(&[kept.objective.service], seconds),
                Some(false) => metrics::SLA_DOWNTIME.add(&[kept.objective.service], seconds),
                None => {}
            }
        }
    }

    /// Stores, reads and judges. Trouble with the store costs freshness; what was seen is kept.
    async fn turn(&mut self) {
        let now = Micros::now();
        let exchanged = async {
            self.store_seen().await?;
            self.count_jobs(now).await?;
            self.read(now).await
        };
        if let Err(error) = exchanged.await {
            debug!(error = &error as &dyn std::error::Error, "the minutes of the objectives wait for the database");
        }
        self.show(now);
    }

    async fn store_seen(&mut self) -> Result<(), store::Error> {
        let mut rows = Vec::new();
        for kept in &mut self.kept {
            let Some((observer, _)) = &kept.observed else { continue };
            for (minute, seen, good) in observer.pending() {
                // The local window has it at once, even while the database is unavailable.
                kept.window.merge(minute, seen, good);
                rows.push(Bucket { slo: kept.key.clone(), minute, seen, good });
            }
        }
        self.app.merge_minutes(Unit::Seconds, &rows).await?;
        for kept in &mut self.kept {
            let Some((observer, _)) = &mut kept.observed else { continue };
            rows.iter()
                .filter(|row| row.slo == kept.key)
                .for_each(|row| observer.stored(row.minute, row.seen, row.good));
        }
        Ok(())
    }

    /// Counts the jobs of the last minutes again: any process, however often it counts, gets the same result.
    async fn count_jobs(&mut self, now: Micros) -> Result<(), store::Error> {
        if self.counted_at.is_some_and(|at| at.elapsed() < COUNT_EVERY) {
            return Ok(());
        }
        let this_minute = minute_of(now);
        let counted_to = match self.counted_to {
            Some(minute) => minute,
            None => self.app.last_minute("jobs/latency").await?.unwrap_or(this_minute - COUNT_MINUTES_MAX),
        };
        let from = (counted_to - 1).max(this_minute - WINDOW_MINUTES);
        let to = this_minute.min(from + COUNT_MINUTES_MAX);
        let counts = self.app.finished_by_minute(from, to + 1).await?;
        let bucket = |slo: &str, minute, seen, good| Bucket { slo: slo.to_owned(), minute, seen, good };
        let rows: Vec<Bucket> = counts
            .iter()
            .flat_map(|c| {
                [
                    bucket("jobs/latency", c.minute, c.total, c.fast),
                    bucket("jobs/latency-cap", c.minute, c.total, c.capped),
                ]
            })
            .collect();
        self.app.merge_minutes(Unit::Events, &rows).await?;
        self.counted_to = Some(to);
        // After an absence the next turn continues at once.
        self.counted_at = (to == this_minute).then(Instant::now);
        Ok(())
    }

    async fn read(&mut self, now: Micros) -> Result<(), store::Error> {
        let oldest = minute_of(now) - WINDOW_MINUTES + 1;
        let whole = self.read_at.is_none_or(|at| at.elapsed() >= REREAD_EVERY);
        let since = if whole { oldest } else { minute_of(now) - RECENT_MINUTES };
        for bucket in self.app.minutes_since(since).await? {
            if let Some(kept) = self.kept.iter_mut().find(|kept| kept.key == bucket.slo) {
                kept.window.merge(bucket.minute, bucket.seen, bucket.good);
            }
        }
        if whole {
            self.read_at = Some(Instant::now());
            self.app.forget_minutes(oldest).await?;
        }
        Ok(())
    }

    fn show(&mut self, now: Micros) {
        let minute = minute_of(now);
        let (mut judgements, mut without_data) = (Vec::new(), Vec::new());
        for kept in &mut self.kept {
            kept.window.forget_before(minute - WINDOW_MINUTES + 1);
            if let Some((observer, _)) = &mut kept.observed {
                observer.forget_before(minute - WINDOW_MINUTES + 1);
            }
            // Until the window was read once, a restart would look like a fresh start.
            let judged = self.read_at.and_then(|_| judge(&kept.objective, &kept.window, minute));
            match judged {
                Some(judgement) => {
                    export(&judgement);
                    kept.has_judgement = true;
                    judgements.push(judgement);
                }
                None => {
                    if kept.has_judgement {
                        forget(&kept.objective);
                    }
                    without_data.push(kept.objective.clone());
                }
            }
        }
        self.app.board().show(now, judgements, without_data);
    }
}

fn export(j: &Judgement) {
    let labels = [j.objective.service, j.objective.name];
    metrics::SLO_STATUS.set(&labels, j.status.gauge());
    match j.objective.unit {
        Unit::Seconds => {
            metrics::ERROR_BUDGET_SECONDS.set(&labels, j.allowed);
            metrics::ERROR_BUDGET_USED_SECONDS.set(&labels, j.tally.bad() as f64);
            let unknown = j.objective.window_minutes * 60 - j.tally.total;
            metrics::SLA_UNKNOWN.set(&[j.objective.service], unknown as f64);
        }
        Unit::Events => {
            metrics::ERROR_BUDGET_EVENTS.set(&labels, j.allowed);
            metrics::ERROR_BUDGET_USED_EVENTS.set(&labels, j.tally.bad() as f64);
        }
    }
}

/// A series cannot be taken back; one that is no number holds no condition.
fn forget(objective: &Objective) {
    let labels = [objective.service, objective.name];
    metrics::SLO_STATUS.set(&labels, f64::NAN);
    let (budget, used) = match objective.unit {
        Unit::Seconds => (&metrics::ERROR_BUDGET_SECONDS, &metrics::ERROR_BUDGET_USED_SECONDS),
        Unit::Events => (&metrics::ERROR_BUDGET_EVENTS, &metrics::ERROR_BUDGET_USED_EVENTS),
    };
    budget.set(&labels, f64::NAN);
    used.set(&labels, f64::NAN);
}

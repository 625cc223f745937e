//! Workers as they announce themselves: heartbeats in, their presence stored and exported.
//!
//! A heartbeat is a core NATS request on `swarm.agents.<mission>.heartbeat`; the answer names the jobs that the worker
//! runs although they are final, which makes up for a lost cancel, and the time, so that the worker judges deadlines by
//! this clock; its next heartbeat reports how far its own differs.

use crate::app::App;
use crate::consumers::QueueConsumers;
use crate::metrics;
use crate::model::{Agent, Presence};
use crate::reconcile::pause;
use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::Mission;
use agentforge_metrics::Metric;
use agentforge_proto::bus::{Heartbeat, HeartbeatReply};
use agentforge_proto::time::Micros;
use futures_util::StreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Replicas share the beats.
const QUEUE_GROUP: &str = "orchestrator";
/// Longest list kept of one beat.
const LIST_MAX: usize = 256;
/// Jobs of one beat that are looked up.
const RUNNING_MAX: usize = 512;
/// How often presence is counted.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Workers read for the gauges.
const EXPORT_MAX: u32 = 1_000;

/// What a beat says of a worker.
pub fn agent_of(beat: &Heartbeat, now: Micros) -> Agent {
    let text = |s: &str| s.chars().filter(|c| !c.is_control()).take(128).collect::<String>();
    Agent {
        id: beat.agent.clone(),
        mission: beat.mission.clone(),
        site: beat.site.clone(),
        host: text(&beat.host),
        version: text(&beat.version),
        tools: beat.tools.iter().take(LIST_MAX).map(|t| text(t)).collect(),
        queues: beat.queues.iter().take(LIST_MAX).map(ToString::to_string).collect(),
        capacity: beat.capacity,
        inflight: beat.inflight,
        interval: Duration::from_millis(beat.interval_ms.clamp(100, 3_600_000)),
        left: beat.leaving,
        first_seen_at: now,
        last_seen_at: now,
        certificate_expires_at: beat.certificate_expires_at,
        clock_skew_us: beat.clock_skew_us,
        unconfined: beat.unconfined.as_deref().map(text),
    }
}

/// Takes beats until `stop` fires.
///
/// # Errors
/// When the subscription ends without a stop.
pub async fn beat_loop(
    app: App,
    nats: Nats,
    mission: Mission,
    consumers: QueueConsumers,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let subject = subjects::agent_heartbeat(&mission);
    let mut beats = nats.client().queue_subscribe(subject, QUEUE_GROUP.into()).await?;
    loop {
        let message = tokio::select! {
            m = beats.next() => m,
            () = stop.cancelled() => return Ok(()),
        };
        let Some(message) = message else { anyhow::bail!("the subscription to heartbeats has ended") };
        let Ok(beat) = serde_json::from_slice::<Heartbeat>(&message.payload) else {
            warn!(bytes = message.payload.len(), "heartbeat cannot be read; ignored");
            continue;
        };
        if beat.mission == mission {
            beat.queues.iter().take(LIST_MAX).for_each(|q| consumers.note(q));
        }
        let reply = take(&app, &beat).await;
        if let (Some(to), Some(reply)) = (message.reply, reply) {
            let bytes = serde_json::to_vec(&reply).expect("a reply holds ids only");
            let _ = nats.client().publish(to, bytes.into()).await;
        }
    }
}

async fn take(app: &App, beat: &Heartbeat) -> Option<HeartbeatReply> {
    let agent = agent_of(beat, Micros::now());
    if agent.mission == *app.mission() {
        app.queues().note_agent(&agent);
    }
    if let Err(e) = app.note_worker(&agent).await {
        warn!(error = &e as &dyn std::error::Error, agent = %agent.id, "a heartbeat could not be stored");
        return None;
    }
    if beat.leaving {
        info!(agent = %agent.id, "a worker has left");
    }
    let running = &beat.running[..beat.running.len().min(RUNNING_MAX)];
    if running.is_empty() {
        return Some(HeartbeatReply { stop: vec![], at: Some(Micros::now()) });
    }
    // A worker that reports a job as running has it, regardless of its message: that counts as a check.
    if let Err(e) = app.note_checked(running, Micros::now()).await {
        warn!(error = &e as &dyn std::error::Error, "running jobs could not be noted");
    }
    let known = app.versions(running).await.ok()?;
    Some(HeartbeatReply {
        stop: known.into_iter().filter(|(_, state, _)| state.is_final()).map(|(id, ..)| id).collect(),
        at: Some(Micros::now()),
    })
}

/// Whether workers are present, as last counted.
#[derive(Clone, Debug, Default)]
pub struct Attendance(Arc<AtomicU8>);

impl Attendance {
    const UP: u8 = 1;
    const DOWN: u8 = 2;

    /// Up with one online, down with none online and one missing. Unknown if none is missing: workers that signed off,
    /// or were scaled to zero, are not an outage.
    fn note(&self, online: usize, offline: usize) {
        let word = match (online, offline) {
            (1.., _) => Self::UP,
            (0, 1..) => Self::DOWN,
            (0, 0) => 0,
        };
        self.0.store(word, Ordering::Relaxed);
    }

    /// What was counted last.
    pub fn is_up(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::UP => Some(true),
            Self::DOWN => Some(false),
            _ => None,
        }
    }

    fn forget(&self) {
        self.note(0, 0);
    }
}

/// Counts presence and certificates every few seconds until `stop` fires: objectives ask who is there.
pub async fn count_loop(roll: Arc<Roll>, stop: CancellationToken) -> Result<(), anyhow::Error> {
    while pause(&stop, CHECK_INTERVAL).await {
        roll.clone().call().await;
    }
    Ok(())
}

/// Which workers are present: requested by a loop, and by each scrape.
pub struct Roll {
    app: App,
    attendance: Attendance,
    /// Sites that have a series of certificates, and of clocks.
    shown: Mutex<[HashSet<String>; 2]>,
}

impl Roll {
    /// Not counted yet.
    pub fn new(app: App, attendance: Attendance) -> Arc<Self> {
        Arc::new(Self { app, attendance, shown: Mutex::default() })
    }

    /// Counts and exports. While the store does not answer, no worker is known to be present or missing.
    pub async fn call(self: Arc<Self>) {
        let Ok(agents) = self.app.workers(None, None, EXPORT_MAX).await else {
            return self.attendance.forget();
        };
        let now = Micros::now();
        let count = |status| agents.iter().filter(|a| a.presence(now) == status).count();
        for status in [Presence::Online, Presence::Offline, Presence::Left] {
            metrics::AGENTS.set(&[status.as_str()], count(status) as f64);
        }
        let online = agents.iter().filter(|a| a.presence(now) == Presence::Online);
        self.app.set_slots(online.map(|a| a.capacity as usize).sum());
        self.attendance.note(count(Presence::Online), count(Presence::Offline));
        let (mut earliest, mut furthest) = (HashMap::<&str, f64>::new(), HashMap::<&str, f64>::new());
        for a in agents.iter().filter(|a| a.presence(now) == Presence::Online) {
            if let Some(end) = a.certificate_expires_at.map(|end| end.0 as f64 / 1e6) {
                let e = earliest.entry(a.site.as_str()).or_insert(end);
                *e = end.min(*e);
            }
            if let Some(skew) = a.clock_skew_us.map(|us| us as f64 / 1e6) {
                let f = furthest.entry(a.site.as_str()).or_insert(skew);
                *f = if skew.abs() > f.abs() { skew } else { *f };
            }
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let [certificates, clocks] = &mut *shown;
        show(&metrics::AGENT_CERTIFICATE_EXPIRY, earliest, certificates);
        show(&metrics::AGENT_CLOCK_SKEW, furthest, clocks);
    }
}

/// Exports a value for each site, and none for the sites that were `shown` before and have none now.
fn show(metric: &Metric, values: HashMap<&str, f64>, shown: &mut HashSet<String>) {
    let mut gone = std::mem::take(shown);
    for (site, value) in values {
        let site = metrics::site_label(site).to_owned();
        metric.set(&[&site], value);
        gone.remove(&site);
        shown.insert(site);
    }
    // A series cannot be taken back; one that is no number holds no condition.
    gone.iter().for_each(|site| metric.set(&[site], f64::NAN));
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_message_id::{AgentId, Site};

    #[test]
    fn workers_that_said_good_bye_are_no_outage() {
        let attendance = Attendance::default();
        for (online, offline, expected) in
            [(0, 0, None), (1, 0, Some(true)), (1, 7, Some(true)), (0, 1, Some(false)), (0, 0, None)]
        {
            attendance.note(online, offline);
            assert_eq!(attendance.is_up(), expected, "{online} online, {offline} offline");
        }
    }

    #[test]
    fn three_missed_beats_are_an_absence_and_a_good_bye_is_none() {
        let beat = Heartbeat {
            agent: AgentId::new("w").unwrap(),
            mission: Mission::new("dev").unwrap(),
            site: Site::new("dev").unwrap(),
            host: "h\u{7}".into(),
            version: "1".into(),
            tools: vec!["echo".into(); 1000],
            queues: vec![],
            capacity: 1,
            inflight: 0,
            interval_ms: 5_000,
            leaving: false,
            running: vec![],
            certificate_expires_at: None,
            clock_skew_us: None,
            unconfined: Some("cgroup\n".into()),
        };
        let t = Micros(0);
        let a = agent_of(&beat, t);
        assert_eq!((a.host.as_str(), a.tools.len(), a.unconfined.as_deref()), ("h", 256, Some("cgroup")));
        assert_eq!(a.presence(t.plus(Duration::from_secs(15))), Presence::Online);
        assert_eq!(a.presence(t.plus(Duration::from_secs(16))), Presence::Offline);
        let left = agent_of(&Heartbeat { leaving: true, ..beat }, t);
        assert_eq!(left.presence(t.plus(Duration::from_secs(1600))), Presence::Left);
    }
}

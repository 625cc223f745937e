//! The lifeline: work that must continue while tools keep every thread of the main runtime busy.
//!
//! One thread with a runtime and a NATS connection of its own sends the keep-alives and the
//! heartbeats, hears the orchestrator's time in their answers, and listens for cancels. The connection is part of the point: the main one is written
//! to by a task of the main runtime, which a tool that computes without a pause would starve.

use crate::{certificate, clock::Clock, config::host_name, keepalive::KeepAlive, ledger::Ledger, metrics};
use agentforge_jetstream::{Nats, NatsConfig, subjects};
use agentforge_message_id::{AgentId, Mission, Queue, Site};
use agentforge_proto::{
    bus::{CancelSignal, Heartbeat, HeartbeatReply},
    time::Micros,
};
use bytes::Bytes;
use futures_util::StreamExt;
use std::{
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// For the answer to one heartbeat.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// For the last heartbeat, while the process is on its way out.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// After a first beat without an answer.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A renewed certificate is noticed this late.
const CERTIFICATE_AGE_MAX: Duration = Duration::from_secs(300);
/// Most tools that a heartbeat names.
const TOOLS_NAMED_MAX: usize = 256;
const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// Why the lifeline ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine gave no thread or no runtime.
    #[error("starting the lifeline's thread")]
    Start(#[source] std::io::Error),
    /// The settings do not let a connection be set up.
    #[error("setting up the lifeline's connection")]
    Connect(#[source] agentforge_jetstream::Error),
    /// The client refused the subscription for cancels.
    #[error("subscribing to cancels")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// The client ended the subscription for cancels.
    #[error("the subscription to cancels ended")]
    Ended,
    /// The thread panicked, which is a defect of this program.
    #[error("the lifeline's thread panicked")]
    Panicked,
}

/// What the worker says of itself in every heartbeat.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The worker's name, unique among those that run.
    pub id: AgentId,
    /// Whose jobs it runs.
    pub mission: Mission,
    /// Where it is.
    pub site: Site,
    /// The queues it serves.
    pub queues: Vec<Queue>,
    /// The tools it has.
    pub tools: Vec<String>,
    /// Jobs in flight, at most.
    pub capacity: u32,
    /// Between two heartbeats.
    pub interval: Duration,
    /// Its client certificate, if it has one.
    pub certificate: Option<PathBuf>,
    /// What its commands are not confined by, if it has some.
    pub unconfined: Option<String>,
}

/// What the lifeline works on.
#[derive(Clone, Debug)]
pub struct Lifeline {
    /// What it says of the worker.
    pub identity: Identity,
    /// Where NATS is.
    pub nats: NatsConfig,
    /// What runs here; cancels go there.
    pub ledger: Arc<Ledger>,
    /// The deliveries to keep alive.
    pub keepalive: Arc<KeepAlive>,
    /// Set by the answers to heartbeats.
    pub clock: Arc<Clock>,
}

impl Lifeline {
    /// Starts the thread. It works until `stop` fires, then signs off. The receiver reports how it ended.
    ///
    /// # Errors
    /// [`Error::Start`] when the machine gives no thread.
    pub fn start(self, stop: CancellationToken) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
        let (tell, ended) = oneshot::channel();
        let work = move || {
            let outcome = runtime.block_on(self.run(stop));
            // A name look-up that hangs must not keep the thread.
            runtime.shutdown_background();
            let _ = tell.send(outcome);
        };
        thread::Builder::new().name("af-lifeline".to_owned()).spawn(work).map_err(Error::Start)?;
        Ok(ended)
    }

    async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let name = format!("{} lifeline", self.identity.id);
        let nats = Nats::connect(&self.nats, &name).await.map_err(Error::Connect)?;
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = self.keep_alive(&nats) => unreachable!("it repeats forever"),
            () = self.beat(&nats) => unreachable!("it repeats forever"),
            ended = self.listen(&nats) => ended,
        };
        if nats.is_connected() {
            let farewell = self.heartbeat(true, None);
            let _ = timeout(FAREWELL_TIMEOUT, nats.client().request(self.beat_subject(), farewell)).await;
            let _ = timeout(FAREWELL_TIMEOUT, nats.client().flush()).await;
        }
        ended
    }

    async fn keep_alive(&self, nats: &Nats) {
        loop {
            self.keepalive.wait().await;
            if !nats.is_connected() {
                continue;
            }
            for reply in self.keepalive.due(Instant::now()) {
                // A lost one is made up for by the next.
                let _ = nats.client().publish(reply, IN_PROGRESS).await;
            }
        }
    }

    async fn listen(&self, nats: &Nats) -> Result<(), Error> {
        let subject = subjects::control_cancel(&self.identity.mission);
        let mut signals = nats.client().subscribe(subject).await.map_err(Error::Subscribe)?;
        while let Some(message) = signals.next().await {
            match serde_json::from_slice::<CancelSignal>(&message.payload) {
                Ok(signal) => self.ledger.cancel(signal.job, signal.attempt),
                Err(error) => warn!(%error, "cancel cannot be read; ignored"),
            }
        }
        Err(Error::Ended)
    }

    async fn beat(&self, nats: &Nats) {
        // A first beat before the connection is up would only be a failure that means nothing.
        nats.wait_connected(ANSWER_TIMEOUT).await;
        let mut tick = interval(self.identity.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut missed, mut expiry, mut looked) = (0_u32, None, None::<Instant>);
        loop {
            tick.tick().await;
            if looked.is_none_or(|at| at.elapsed() > CERTIFICATE_AGE_MAX) {
                (expiry, looked) =
                    (certificate::expiry(self.identity.certificate.as_deref()).await, Some(Instant::now()));
            }
            let failed = self.beat_once(nats, expiry).await.err();
            if failed.is_some() {
                metrics::HEARTBEAT_FAILURES.inc(&[]);
            }
            match (&failed, missed) {
                // A single failure says little: an orchestrator that starts at the same time is not ready yet.
                (Some(reason), 1) => warn!(reason, "heartbeats are not answered"),
                (None, 2..) => info!("heartbeats are answered again"),
                _ => {}
            }
            missed = if failed.is_some() { missed.saturating_add(1) } else { 0 };
            if missed == 1 {
                tick.reset_after((self.identity.interval / 5).min(FIRST_RETRY));
            }
        }
    }

    async fn beat_once(&self, nats: &Nats, expiry: Option<Micros>) -> Result<(), String> {
        // Without a connection nothing is sent: it would arrive late, in a heap.
        if !nats.is_connected() {
            return Err("not connected to NATS".to_owned());
        }
        let limit = ANSWER_TIMEOUT.min(self.identity.interval);
        let asked = Instant::now();
        let request = nats.client().request(self.beat_subject(), self.heartbeat(false, expiry));
        let answer = timeout(limit, request).await.map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|e| e.to_string())?;
        let reply: HeartbeatReply =
            serde_json::from_slice(&answer.payload).map_err(|e| format!("an answer that is none: {e}"))?;
        if let Some(at) = reply.at {
            self.clock.hear(at, asked.elapsed(), Instant::now());
        }
        for job in reply.stop {
            self.ledger.stop(job);
        }
        Ok(())
    }

    fn beat_subject(&self) -> String {
        subjects::agent_heartbeat(&self.identity.mission)
    }

    fn heartbeat(&self, leaving: bool, certificate_expires_at: Option<Micros>) -> Bytes {
        let identity = &self.identity;
        let beat = Heartbeat {
            agent: identity.id.clone(),
            mission: identity.mission.clone(),
            site: identity.site.clone(),
            host: host_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tools: identity.tools.iter().take(TOOLS_NAMED_MAX).cloned().collect(),
            queues: identity.queues.clone(),
            capacity: identity.capacity,
            inflight: u32::try_from(self.ledger.len()).unwrap_or(u32::MAX),
            interval_ms: u64::try_from(identity.interval.as_millis()).unwrap_or(u64::MAX),
            leaving,
            running: self.ledger.longer_than(identity.interval),
            certificate_expires_at,
            clock_skew_us: self.clock.skew_us(),
            unconfined: identity.unconfined.clone(),
        };
        serde_json::to_vec(&beat).expect("a heartbeat of plain values serializes").into()
    }
}

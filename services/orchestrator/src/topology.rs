//! `agentforge-orchestrator topology`: makes the streams, fixed consumers and buckets of every service, and keeps them so.
//!
//! The one process whose NATS user may create and change them. It checks when it starts, when the connection is back,
//! when the server says that one was deleted or changed, and every few seconds anyway, so that what is removed at run
//! time is there again within seconds. It serves nothing but its page of health and metrics. Consumers of queues are the
//! orchestrator's, and consumers of endpoints the broadcaster's: only they know which there are.

use crate::metrics;
use crate::reconcile::pause;
use agentforge_config::{CommaList, Common, Reader, Setting};
use agentforge_jetstream::topology::webhooks::{self, WebhookLimits};
use agentforge_jetstream::topology::{self, EvidenceConfig, Inspection, Maker, Plan, TacticalConfig, TopologyConfig};
use agentforge_jetstream::{Nats, NatsConfig, REPLIES_APART, ServerVersion, subjects};
use agentforge_message_id::Mission;
use agentforge_metrics::Metric;
use agentforge_runtime::{Endpoints, Gate, OnEnd, Runtime, Service, serve_metrics};
use anyhow::{Context, Error};
use futures_util::StreamExt as _;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

const TOPOLOGY_PARTS: Setting = Setting::new(
    "TOPOLOGY_PARTS",
    Some("jobs,webhooks,tactical"),
    "jobs, webhooks, tactical, evidence, comma separated",
    "Whose streams and buckets the topology makes; evidence at the hub of edge sites.",
);

/// Between two periodic checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Between two tries at what is not as planned.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Between any two checks: what the server says of many changes comes in bursts.
const BREATH: Duration = Duration::from_millis(200);
/// What the server says when a stream or consumer is deleted or changed.
const ADVISORIES: [&str; 3] = [
    "$JS.EVENT.ADVISORY.STREAM.DELETED.>",
    "$JS.EVENT.ADVISORY.STREAM.UPDATED.>",
    "$JS.EVENT.ADVISORY.CONSUMER.DELETED.>",
];

/// A part of the topology that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Jobs,
    Webhooks,
    Tactical,
    Evidence,
}

/// The topology's settings: those of all streams.
#[derive(Debug, Clone)]
pub struct Config {
    common: Common,
    nats: NatsConfig,
    mission: Mission,
    parts: BTreeSet<Part>,
    jobs: TopologyConfig,
    webhooks: WebhookLimits,
    tactical: TacticalConfig,
    evidence: EvidenceConfig,
}

impl Config {
    fn read(r: &mut Reader<'_>) -> Self {
        let common = Common::read(r);
        let mission = Mission::new(&common.mission).unwrap_or_else(|e| {
            r.fault("MISSION", e.to_string());
            Mission::new("dev").expect("fits the grammar")
        });
        let mut parts = BTreeSet::new();
        for name in r.get::<CommaList>(&TOPOLOGY_PARTS).into_inner() {
            parts.insert(match name.as_str() {
                "jobs" => Part::Jobs,
                "webhooks" => Part::Webhooks,
                "tactical" => Part::Tactical,
                "evidence" => Part::Evidence,
                other => {
                    r.fault(TOPOLOGY_PARTS.key, format!("{other:?} is none of {}", TOPOLOGY_PARTS.values));
                    continue;
                }
            });
        }
        Self {
            nats: NatsConfig::read(r),
            mission,
            parts,
            jobs: TopologyConfig::read(r),
            webhooks: WebhookLimits::read(r),
            tactical: TacticalConfig::read(r),
            evidence: EvidenceConfig::read(r),
            common,
        }
    }

    /// Everything that is owned here. Retries and evidence are apart: the server or an operator decides about their
    /// limits.
    fn plan(&self) -> Plan {
        let has = |part| self.parts.contains(&part);
        let mut all = Plan::default();
        let mut add = |plan: Plan| {
            all.streams.extend(plan.streams);
            all.consumers.extend(plan.consumers);
        };
        if has(Part::Jobs) {
            add(topology::plan(&self.jobs, &self.mission, &[]));
        } else if has(Part::Webhooks) {
            add(topology::events_plan(&self.jobs));
        }
        if has(Part::Webhooks) {
            add(webhooks::webhooks_plan(&self.jobs, &self.webhooks));
            add(webhooks::deliveries_plan(&self.jobs, &self.webhooks));
        }
        if has(Part::Tactical) {
            add(topology::tactical_plan(&self.tactical));
        }
        // These follow the queues, which the orchestrator knows.
        all.consumers.retain(|planned| planned.stream != subjects::STREAM_JOBS);
        all
    }

    async fn inspect(&self, nats: &Nats, plan: &Plan) -> Inspection {
        let js = nats.jetstream();
        let mut inspection = topology::keep(js, plan, Maker::Make).await;
        let mut reports = Vec::new();
        if self.parts.contains(&Part::Webhooks) {
            reports.push(webhooks::ensure_retries(js, &self.jobs, &self.webhooks, Maker::Make).await);
            if let Err(error) = webhooks::takes_schedules(js, Maker::Make).await {
                warn!(error = &error as &dyn std::error::Error, "the stream of retries cannot be read");
            }
        }
        if self.parts.contains(&Part::Evidence) {
            reports.push(topology::ensure_evidence(js, &self.evidence, true, Maker::Make).await);
        }
        for report in reports {
            match report {
                Ok(report) => {
                    inspection.report.created.extend(report.created);
                    inspection.report.updated.extend(report.updated);
                }
                Err(error) => inspection.faults.push(error),
            }
        }
        inspection
    }
}

/// The process that makes streams, consumers and buckets.
pub struct Topology {
    config: Config,
    runtime: Runtime,
    nats: Nats,
    endpoints: Endpoints,
}

#[async_trait::async_trait]
impl Service for Topology {
    const NAME: &'static str = "topology";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![
            ("Topology", vec![TOPOLOGY_PARTS]),
            ("Streams and consumers", TopologyConfig::SETTINGS.to_vec()),
            ("Streams of webhooks", WebhookLimits::SETTINGS.to_vec()),
            ("Stream", TacticalConfig::SETTINGS.to_vec()),
            ("Evidence", EvidenceConfig::SETTINGS.to_vec()),
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
        vec![&[metrics::STREAMS_AMISS], agentforge_jetstream::metrics::CATALOGUE]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, Error> {
        let nats = Nats::connect(&config.nats, "agentforge-topology").await.context("cannot set up the NATS client")?;
        let metrics = serve_metrics(&runtime, &config.common).await?;
        let is_tls = config.common.tls.is_some();
        let endpoints = Endpoints { http: metrics, grpc: None, metrics, is_tls, is_metrics_tls: is_tls };
        Ok(Self { config, runtime, nats, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), Error> {
        let Self { config, runtime, nats, .. } = self;
        let supervisor = runtime.supervisor();
        let gate = runtime.readiness().gate("streams", true);
        gate.set(false, "not looked at yet");
        supervisor.spawn("topology", OnEnd::Stop, watch(config, nats.clone(), gate, runtime.stopping()));
        runtime.stopping().cancelled().await;
        Ok(nats.drain().await?)
    }
}

/// Keeps everything as planned until `stop` fires.
async fn watch(config: Config, nats: Nats, gate: Gate, stop: CancellationToken) -> Result<(), Error> {
    let plan = config.plan();
    let mut advisories = Vec::new();
    for subject in ADVISORIES {
        advisories.push(nats.client().subscribe(subject).await.context("subscribe to the server's advisories")?);
    }
    let mut changes = futures_util::stream::select_all(advisories);
    let (mut connected, mut told) = (nats.connected(), String::new());
    let mut warned = false;
    loop {
        if !nats.is_connected() {
            gate.set(false, nats.trouble().map_or_else(|| "NATS is unavailable".to_owned(), |t| t.reason));
            tokio::select! {
                _ = connected.wait_for(|c| *c) => {}
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
                () = stop.cancelled() => return Ok(()),
            }
            continue;
        }
        let inspection = tokio::select! {
            inspection = config.inspect(&nats, &plan) => inspection,
            () = stop.cancelled() => return Ok(()),
        };
        if let Some(problem) = unguarded(&nats).filter(|_| !std::mem::replace(&mut warned, true)) {
            warn!(problem, "the NATS server is too old for users with rights of their own");
        }
        let rest = take_in(&inspection, &nats, &plan, &gate, &mut told).await;
        if !pause(&stop, BREATH).await {
            return Ok(());
        }
        tokio::select! {
            changed = changes.next() => if changed.is_none() { return Ok(()) },
            lost = connected.wait_for(|c| !*c) => { let _ = lost?; }
            () = tokio::time::sleep(rest) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// What is to be said of a server that does not keep the identities apart: the streams are as planned all the same.
fn unguarded(nats: &Nats) -> Option<String> {
    let version = ServerVersion::parse(&nats.client().server_info().version)?;
    let [older, newer] = REPLIES_APART;
    (!version.keeps_replies_apart()).then(|| {
        format!(
            "as planned; nats-server {version} lets replies reach JetStream's API, so that its users are not apart: run \
             {older}, or {newer} or newer"
        )
    })
}

/// Reports the result of a check; returns when the next one is.
async fn take_in(inspection: &Inspection, nats: &Nats, plan: &Plan, gate: &Gate, told: &mut String) -> Duration {
    let topology::Report { created, updated } = &inspection.report;
    if !created.is_empty() || !updated.is_empty() {
        info!(?created, ?updated, "streams, consumers and buckets are made as planned");
    }
    metrics::STREAMS_AMISS.set(&[], inspection.faults.len() as f64);
    if inspection.faults.is_empty() {
        if !told.is_empty() {
            info!("all streams, consumers and buckets are as planned again");
            told.clear();
        }
        gate.set(true, unguarded(nats).unwrap_or_else(|| "as planned".to_owned()));
        return CHECK_INTERVAL;
    }
    let mut problem = inspection.faults.iter().map(crate::streams::chain).collect::<Vec<_>>().join("; ");
    if inspection.faults.iter().any(topology::Error::is_short_of_storage) {
        problem = format!("{problem}; {}", topology::room(nats.jetstream(), plan).await);
    }
    if *told != problem {
        error!(problem, "streams, consumers or buckets cannot be made as planned; trying again");
        told.clone_from(&problem);
    }
    gate.set(false, problem);
    RETRY_INTERVAL
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn names(parts: &str) -> (Vec<String>, Vec<String>) {
        let source = BTreeMap::from([("TOPOLOGY_PARTS".to_owned(), parts.to_owned())]);
        let mut reader = Reader::new(&source);
        let config = Config::read(&mut reader);
        reader.finish().unwrap();
        let plan = config.plan();
        let streams = plan.streams.into_iter().map(|s| s.name).collect();
        (streams, plan.consumers.into_iter().map(|c| c.stream).collect())
    }

    #[test]
    fn a_part_that_is_left_out_makes_nothing() {
        let (streams, consumers) = names("jobs,webhooks,tactical");
        for name in ["swarm_jobs", "events", "broadcaster_dlq", "broadcaster_deliveries", "tactical", "KV_operations"] {
            assert_eq!(streams.iter().filter(|s| *s == name).count(), 1, "{name}");
        }
        assert_eq!(consumers, ["swarm_results", "events"], "those of queues are the orchestrator's");
        assert_eq!(names("tactical").0, ["tactical"]);
        assert!(names("webhooks").0.contains(&"events".to_owned()));
    }
}

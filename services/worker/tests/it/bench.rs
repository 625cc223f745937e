//! A server with the product's topology, workers, and an orchestrator that only publishes and reads.

use agentforge_config::Reader;
use agentforge_harness::{NatsOptions, NatsServer, eventually};
use agentforge_jetstream::{
    Delivery, HeaderMap, Nats, NatsConfig, PullOptions, Puller, publish, subjects,
    topology::{self, TopologyConfig},
};
use agentforge_message_id::{AgentId, Attempt, JobId, Mission, MsgId, Queue, ToolName};
use agentforge_proto::{
    bus::{Finished, Heartbeat, HeartbeatReply, JobMessage, Outcome, Rejected, Report, Started},
    time::Micros,
};
use agentforge_runtime::{Process, Runtime, Service};
use agentforge_worker::{CompiledIn, Tool, ToolContext, ToolError, ToolOutput, Toolbox, WorkerWith};
use async_trait::async_trait;
use futures_util::StreamExt;
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// For everything that must happen.
pub const SOON: Duration = Duration::from_secs(60);

/// What was reported to the orchestrator.
#[derive(Default)]
pub struct Received {
    pub started: Vec<Started>,
    pub finished: Vec<Finished>,
    pub rejected: Vec<Rejected>,
    pub heartbeats: Vec<Heartbeat>,
    /// Jobs that heartbeats ask to stop.
    pub stop: Vec<JobId>,
    /// How far the orchestrator's clock is ahead of the worker's.
    pub clock_ahead_us: i64,
}

pub struct Bench {
    pub server: NatsServer,
    pub nats: Nats,
    pub mission: Mission,
    pub received: Arc<Mutex<Received>>,
    /// Where workers connect; possibly a proxy.
    pub url: String,
    _reader: JoinHandle<()>,
    _heartbeats: JoinHandle<()>,
}

pub fn queue(name: &str) -> Queue {
    Queue::new(name).unwrap()
}

impl Bench {
    pub async fn start() -> Self {
        Self::with(NatsOptions::default(), &[]).await
    }

    /// `settings` are those of the topology.
    pub async fn with(options: NatsOptions, settings: &[(&str, &str)]) -> Self {
        let server = NatsServer::start(options).await;
        let nats = Nats::connect(&NatsConfig::for_url(&server.url()).unwrap(), "test").await.unwrap();
        assert!(nats.wait_connected(SOON).await);
        let mission = Mission::new("test").unwrap();
        let mut source: BTreeMap<String, String> = [
            ("JOBS_MAX_BYTES", "64MiB"),
            ("RESULTS_MAX_BYTES", "64MiB"),
            ("DLQ_MAX_BYTES", "16MiB"),
            ("EVENTS_MAX_BYTES", "16MiB"),
            ("OUTPUTS_MAX_BYTES", "64MiB"),
        ]
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
        source.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let mut reader = Reader::new(&source);
        let config = TopologyConfig::read(&mut reader);
        reader.finish().unwrap();
        let queues = [Queue::default(), queue("other")];
        topology::ensure(nats.jetstream(), &topology::plan(&config, &mission, &queues)).await.unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        let bench_reader = tokio::spawn(read_reports(nats.clone(), mission.clone(), received.clone()));
        let heartbeats = tokio::spawn(answer_heartbeats(nats.clone(), mission.clone(), received.clone()));
        let url = server.url();
        Self { server, nats, mission, received, url, _reader: bench_reader, _heartbeats: heartbeats }
    }

    pub fn job(&self, tool: &str, args: &str) -> JobMessage<'static> {
        JobMessage {
            scheduled_at: None,
            job: JobId::generate(),
            attempt: Attempt::FIRST,
            mission: self.mission.clone(),
            queue: Queue::default(),
            tool: ToolName::new(tool).unwrap(),
            task: None,
            args: RawValue::from_string(args.to_owned()).map(Cow::Owned).unwrap(),
            timeout_ms: 30_000,
            deadline: None,
            reuse: false,
            token: None,
            accepted_at: Micros::now(),
        }
    }

    pub async fn submit(&self, job: &JobMessage<'_>) {
        let subject = subjects::job(&job.mission, &job.queue);
        self.send(&subject, MsgId::attempt(job.job, job.attempt).as_str(), serde_json::to_vec(job).unwrap()).await;
    }

    pub async fn send(&self, subject: &str, id: &str, payload: Vec<u8>) {
        publish(&self.nats, subject.to_owned(), MsgId::outbox(id), HeaderMap::new(), payload.into()).await.unwrap();
    }

    /// Submits a job and gives its end.
    pub async fn run(&self, job: &JobMessage<'_>) -> Finished {
        self.submit(job).await;
        self.finished(job.job).await
    }

    pub async fn finished(&self, job: JobId) -> Finished {
        self.until("the job is finished", |received| received.finished.iter().find(|f| f.job == job).cloned()).await
    }

    pub async fn started(&self, job: JobId) -> Started {
        self.until("the job is started", |received| received.started.iter().find(|s| s.job == job).cloned()).await
    }

    pub async fn until<T>(&self, what: &str, mut find: impl FnMut(&Received) -> Option<T>) -> T {
        eventually(SOON, what, || {
            let found = find(&self.received.lock().unwrap());
            async move { found }
        })
        .await
    }

    pub fn finishes_of(&self, job: JobId) -> usize {
        self.received.lock().unwrap().finished.iter().filter(|f| f.job == job).count()
    }

    /// Waits until no message is left on the queue, delivered or not.
    pub async fn queue_is_empty(&self) {
        let js = self.nats.jetstream();
        eventually(SOON, "the job stream is empty", || async {
            let mut stream = js.get_stream(subjects::STREAM_JOBS).await.map_err(|e| e.to_string())?;
            match stream.info().await.map_err(|e| e.to_string())?.state.messages {
                0 => Ok(()),
                n => Err(format!("{n} messages")),
            }
        })
        .await;
    }

    /// A worker in this process.
    pub async fn worker(&self, settings: &[(&str, &str)]) -> RunningWorker {
        RunningWorker::start(&self.url, settings, Duration::from_secs(8)).await
    }
}

async fn read_reports(nats: Nats, mission: Mission, received: Arc<Mutex<Received>>) {
    let durable = subjects::orchestrator_durable(&mission);
    let mut puller = Puller::start(nats, subjects::STREAM_RESULTS, durable, PullOptions::new("test", 256));
    puller.grant(256);
    while let Some(delivery) = puller.next().await {
        let delivery: Delivery = delivery;
        {
            let mut received = received.lock().unwrap();
            match serde_json::from_slice(delivery.payload()).unwrap() {
                Report::Started(s) => received.started.push(s),
                Report::Finished(f) => received.finished.push(f),
                Report::Rejected(r) => received.rejected.push(r),
            }
        }
        delivery.ack().await.unwrap();
        puller.grant(1);
    }
}

async fn answer_heartbeats(nats: Nats, mission: Mission, received: Arc<Mutex<Received>>) {
    let mut beats = nats.client().subscribe(subjects::agent_heartbeat(&mission)).await.unwrap();
    while let Some(message) = beats.next().await {
        let beat: Heartbeat = serde_json::from_slice(&message.payload).unwrap();
        let reply = {
            let mut received = received.lock().unwrap();
            received.heartbeats.push(beat);
            let at = Micros::now().0 + received.clock_ahead_us;
            HeartbeatReply { stop: received.stop.clone(), at: Some(Micros(at)) }
        };
        if let Some(to) = message.reply {
            let _ = nats.client().publish(to, serde_json::to_vec(&reply).unwrap().into()).await;
        }
    }
}

/// Tools that only tests need.
pub struct TestTools;

struct Panics;
struct Blocks;

#[async_trait]
impl Tool for Panics {
    async fn run(&self, _: &ToolContext, _: &RawValue) -> Result<ToolOutput, ToolError> {
        panic!("on purpose")
    }
}

/// Computes without a pause, as a tool should not: `{"ms": n}`.
#[async_trait]
impl Tool for Blocks {
    async fn run(&self, _: &ToolContext, args: &RawValue) -> Result<ToolOutput, ToolError> {
        let args: BTreeMap<String, u64> = agentforge_worker::parse_args(args)?;
        std::thread::sleep(Duration::from_millis(args["ms"]));
        ToolOutput::json(&1)
    }
}

impl CompiledIn for TestTools {
    fn tools() -> Toolbox {
        Toolbox::new().with("panics", Panics).with("blocks", Blocks)
    }
}

/// A worker in the test's process.
pub struct RunningWorker {
    pub id: AgentId,
    pub http: String,
    pub stop: CancellationToken,
    pub runtime: Runtime,
    task: JoinHandle<Result<(), anyhow::Error>>,
}

impl RunningWorker {
    pub async fn start(url: &str, settings: &[(&str, &str)], grace: Duration) -> Self {
        let mut source: BTreeMap<String, String> = [
            ("NATS_URL", url),
            ("MISSION", "test"),
            ("HTTP_PORT", "0"),
            ("METRICS_PORT", "0"),
            ("HEARTBEAT_INTERVAL", "200ms"),
            ("NATS_MAX_RECONNECT_WAIT", "300ms"),
        ]
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
        source.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let mut reader = Reader::new(&source);
        let config = WorkerWith::<TestTools>::read_config(&mut reader);
        reader.finish().unwrap();
        let (stop, id) = (CancellationToken::new(), config.id.clone());
        let runtime = Runtime::new("worker", stop.clone(), grace, &Process::for_tests()).without_metrics_listener();
        let worker = WorkerWith::<TestTools>::build(config, runtime.clone()).await.unwrap();
        let http = worker.endpoints().http_url().unwrap();
        Self { id, http, stop, runtime, task: tokio::spawn(worker.run()) }
    }

    /// Asks it to stop and waits for the end of its drain.
    pub async fn drain(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.unwrap().unwrap().unwrap();
        assert!(self.runtime.supervisor().failure().is_none());
    }
}

pub fn output_of(finished: &Finished) -> String {
    match &finished.outcome {
        Outcome::Succeeded(success) => success.output.as_ref().unwrap().get().to_owned(),
        other => panic!("{other:?}"),
    }
}

pub fn failure_of(finished: &Finished) -> agentforge_proto::bus::Failure {
    match &finished.outcome {
        Outcome::Failed(failure) => failure.clone(),
        other => panic!("{other:?}"),
    }
}

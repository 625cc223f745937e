//! An exporter process, its page as values, and JetStream things to look at.

use agentforge_harness::{NatsServer, Proc, eventually, http_get};
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    message::PublishMessage,
    stream,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// For a cluster to apply a change.
const SETTLED: Duration = Duration::from_secs(30);
/// For a process to listen on a busy machine.
const READY: Duration = Duration::from_secs(30);

/// A running exporter.
pub struct Exporter {
    pub proc: Proc,
    pub url: String,
}

impl Exporter {
    /// Starts one on a free port with these flags.
    pub async fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[]).await
    }

    /// As [`Self::start`], with variables.
    pub async fn start_with(flags: &[&str], envs: &[(&str, &str)]) -> Self {
        let mut proc = Proc::builder(env!("CARGO_BIN_EXE_agentforge-nats-exporter"))
            .args(["-port", "0"])
            .args(flags.iter().copied())
            .env("BIND_ADDR", "127.0.0.1")
            .envs(envs.iter().map(|(k, v)| (*k, *v)))
            .start();
        let ready = proc.ready(READY).await;
        let url = ready["nats-exporter"]["metrics"].as_str().unwrap().to_owned();
        Self { proc, url }
    }

    /// Scrapes it now, and reads the page strictly.
    pub async fn scrape(&self) -> Page {
        let (status, body) = http_get(&self.url, &[]).await.unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        Page::parse(String::from_utf8(body).unwrap())
    }
}

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

/// One family of a page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub series: BTreeMap<Labels, f64>,
}

/// A page, read strictly: each family appears once, with its type before it, and each series once.
#[derive(Debug)]
pub struct Page {
    pub text: String,
    pub families: BTreeMap<String, Family>,
}

impl Page {
    pub fn parse(text: String) -> Self {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let (mut current, mut help) = (String::new(), String::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                help = rest.split_once(' ').unwrap().1.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                current = name.to_owned();
                let family = Family { kind: kind.to_owned(), help: std::mem::take(&mut help), series: BTreeMap::new() };
                assert!(families.insert(current.clone(), family).is_none(), "{name} stands twice");
            } else {
                let (name, labels, value) = sample(line);
                // Histograms have suffixes; those of the process are not looked at here.
                let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let is_here = name == current || stem == Some(&current);
                assert!(is_here, "{name} stands apart from its family {current}");
                if name == current {
                    let before = families.get_mut(&current).unwrap().series.insert(labels, value);
                    assert!(before.is_none(), "a series stands twice: {line}");
                }
            }
        }
        Self { text, families }
    }

    /// The series of a family; none if there is no such family.
    pub fn of(&self, name: &str) -> BTreeMap<Labels, f64> {
        self.families.get(name).map(|family| family.series.clone()).unwrap_or_default()
    }

    /// The one series of a family that has these labels.
    #[track_caller]
    pub fn value(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        let found = self.matching(name, with);
        assert_eq!(found.len(), 1, "{name}{with:?}: {found:?} of {:?}", self.of(name));
        found[0]
    }

    /// The values of a family's series that have these labels.
    pub fn matching(&self, name: &str, with: &[(&str, &str)]) -> Vec<f64> {
        let has = |labels: &Labels| with.iter().all(|(k, v)| labels.get(*k).map(String::as_str) == Some(*v));
        self.of(name).into_iter().filter(|(labels, _)| has(labels)).map(|(_, value)| value).collect()
    }

    /// Families whose names begin so.
    pub fn names(&self, start: &str) -> BTreeSet<String> {
        self.families.keys().filter(|name| name.starts_with(start)).cloned().collect()
    }

    /// The text of the families whose names begin so.
    pub fn part(&self, start: &str) -> String {
        let name = |line: &str| {
            let line = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
            line.to_owned()
        };
        self.text.lines().filter(|line| name(line).starts_with(start)).fold(String::new(), |all, l| all + l + "\n")
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let name_end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").unwrap();
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().unwrap() {
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c => c,
                    }),
                    (at, '"') => break at + 1,
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(key.to_owned(), value).is_none(), "a label stands twice: {line}");
            rest = after[end..].strip_prefix(',').unwrap_or(&after[end..]);
        }
        rest = &rest[1..];
    }
    (name.to_owned(), labels, rest.trim().parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// Labels for comparing.
pub fn labels(all: &[(&str, &str)]) -> Labels {
    all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// What a monitoring endpoint says now.
pub async fn monitor(server: &NatsServer, path: &str) -> Value {
    let (_, body) = http_get(&format!("{}/{path}", server.monitor_url()), &[]).await.unwrap();
    serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{path}: {e}: {}", String::from_utf8_lossy(&body)))
}

/// JetStream of these servers.
pub async fn jetstream(url: &str) -> jetstream::Context {
    jetstream::new(async_nats::connect(url.split(',').collect::<Vec<_>>()).await.unwrap())
}

/// JetStream of this server for a user whose password is `secret-<user>`.
pub async fn jetstream_as(user: &str, server: &NatsServer) -> jetstream::Context {
    let options = async_nats::ConnectOptions::new();
    let options = options.user_and_password(user.to_owned(), format!("secret-{user}"));
    jetstream::new(options.connect(server.url()).await.unwrap())
}

/// A stream with its own subject tree.
pub async fn make_stream(js: &jetstream::Context, name: &str, replicas: usize) -> stream::Stream {
    let config = stream::Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        num_replicas: replicas,
        ..Default::default()
    };
    // In a cluster its leader may not be elected within a request's time; repeating the request creates the same stream.
    eventually(SETTLED, "the stream is created", || js.create_stream(config.clone())).await
}

/// A durable consumer with explicit acknowledgements.
pub async fn make_consumer(stream: &stream::Stream, name: &str) -> jetstream::consumer::Consumer<pull::Config> {
    let config = pull::Config {
        durable_name: Some(name.to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 500,
        ..Default::default()
    };
    // A server of a cluster may not know the stream yet.
    eventually(SETTLED, "the consumer is made", || stream.create_consumer(config.clone())).await
}

/// Makes the leader of `STREAM.LEADER.STEPDOWN.<stream>` or `CONSUMER.LEADER.STEPDOWN.<stream>.<consumer>` step down.
/// Around an election there is none: then an error is the answer, or none comes.
pub async fn step_down(client: &async_nats::Client, what: &str) {
    eventually(SETTLED, "the leader steps down", || async {
        let answer = client.request(format!("$JS.API.{what}"), "".into()).await.map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|e| e.to_string())?;
        if answer["success"] == true { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

static NEXT_ID: AtomicUsize = AtomicUsize::new(0);

/// Stores messages. In a cluster a new stream may have no leader yet; then nothing was stored.
pub async fn publish(js: &jetstream::Context, subject: &str, count: usize) {
    for _ in 0..count {
        // The same message at each try, so that it is stored once.
        let id = format!("{}", NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let message = PublishMessage::build().payload("x".into()).message_id(id);
        eventually(SETTLED, "a message is stored", || async {
            js.send_publish(subject.to_owned(), message.clone()).await.ok()?.await.ok()
        })
        .await;
    }
}

/// Takes messages, and acknowledges the first `acked` of them. In a cluster a new consumer may have no
/// leader yet, and a request for messages goes nowhere then.
pub async fn take(consumer: &jetstream::consumer::Consumer<pull::Config>, count: usize, acked: usize) {
    use futures_util::StreamExt;
    const LONGEST: Duration = Duration::from_secs(30);
    let end = Instant::now() + LONGEST;
    let mut taken = 0;
    while taken < count {
        assert!(Instant::now() < end, "{taken} of {count} messages came within {LONGEST:?}");
        let Ok(mut batch) = consumer.fetch().max_messages(count - taken).messages().await else { continue };
        while let Some(Ok(message)) = batch.next().await {
            if taken < acked {
                message.double_ack().await.unwrap();
            }
            taken += 1;
        }
    }
}

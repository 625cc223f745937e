//! What an identity reaches beyond its own publishes: JetStream sends, on behalf of each client that asks, to the subject that a
//! reply or a consumer names, and the server does not ask whether that one may publish there.
//!
//! Nothing reaches the API of JetStream so (servers from 2.14.10 and 2.15.3 on; an older one is known by the same cells).
//! A body can be copied to a subject of others, `swarm.jobs` among them: it is no order there, because attempts are
//! signed, and results, operations and events are taken by what is in them.

use super::{Server, WAIT, service};
use crate::manifests::overlay;
use agentforge_harness::{eventually, http_get, require};
use agentforge_jetstream::ServerVersion;
use async_nats::jetstream;
use serde_json::{Value, json};

/// Where an order would be.
const JOBS: &str = "swarm.jobs.staging.default";

/// An identity that stores something and reads it back: with which subjects.
struct Insider {
    name: &'static str,
    /// Where it stores.
    store: &'static str,
    /// By which request the server sends a stored body to the reply; none for one that only publishes.
    read: &'static [&'static str],
    /// Of a stream that it may make consumers on, and the subject.
    consumer: Option<(&'static str, &'static str)>,
}

const INSIDERS: [Insider; 5] = [
    Insider {
        name: "worker",
        store: "$KV.handbacks.evil.x",
        read: &["$JS.API.DIRECT.GET.KV_handbacks.$KV.handbacks.evil.x"],
        consumer: None,
    },
    Insider {
        name: "syncdaemon",
        store: "edge.evidence.evil.x",
        read: &["$JS.API.DIRECT.GET.edge_evidence.edge.evidence.evil.x"],
        consumer: None,
    },
    Insider {
        name: "broadcaster",
        store: "broadcaster.dlq.evil.e",
        read: &["$JS.API.DIRECT.GET.broadcaster_dlq.broadcaster.dlq.evil.e"],
        consumer: Some(("KV_broadcaster_state", "$KV.broadcaster_state.evil.x")),
    },
    Insider {
        name: "tactical-api",
        store: "tactical.markers.evil.m",
        read: &["$JS.API.DIRECT.GET.tactical.tactical.markers.evil.m"],
        consumer: Some(("tactical", "tactical.markers.evil.m")),
    },
    Insider { name: "producer", store: "todos.events", read: &[], consumer: None },
];

/// The server and the streams of staging, made by the topology with its own user.
async fn staging() -> (Server, agentforge_harness::Proc, tempfile::TempDir, jetstream::Context) {
    let objects = overlay("staging");
    let mut nats = Server::new(&objects, "nats-0", &[]);
    nats.start().await;
    let dir = tempfile::tempdir().unwrap();
    let parts = [
        ("TOPOLOGY_PARTS", "jobs,webhooks,tactical,evidence"),
        ("EVIDENCE_MAX_BYTES", "4MiB"),
        ("EVIDENCE_BLOBS_MAX_BYTES", "8MiB"),
    ];
    let mut topology = service(&objects, "topology", &nats, &dir, &parts);
    super::is_ready(&mut topology, "topology").await;
    let operator = jetstream::new(nats.client("operator").await);
    (nats, topology, dir, operator)
}

async fn info(operator: &jetstream::Context, stream: &str) -> Value {
    match operator.request(format!("STREAM.INFO.{stream}"), &json!({})).await.unwrap() {
        jetstream::response::Response::Ok(info) => info,
        jetstream::response::Response::Err { error } => json!({ "error": error.to_string() }),
    }
}

async fn messages(operator: &jetstream::Context, stream: &str) -> u64 {
    info(operator, stream).await["state"]["messages"].as_u64().unwrap_or_default()
}

/// Names and settings of all streams: what no attack changes.
async fn settings(operator: &jetstream::Context) -> Vec<Value> {
    let mut all = Vec::new();
    for (stream, _) in super::rights::STREAMS {
        all.push(info(operator, stream).await["config"].clone());
    }
    all
}

/// Whether the server takes no reply and no deliver subject within JetStream's own subjects.
fn is_apart(version: &str) -> bool {
    ServerVersion::parse(version).unwrap().keeps_replies_apart()
}

#[tokio::test]
async fn a_reply_or_a_consumer_reaches_no_api_and_what_it_copies_elsewhere_is_no_order() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (nats, mut topology, dir, operator) = staging().await;
    let version = operator.client().server_info().version;
    let before = settings(&operator).await;
    for Insider { name, store, read, consumer } in INSIDERS {
        let client = nats.client(name).await;
        // What a request of the API would be, and an attempt.
        let stored = json!({
            "name": "evil", "subjects": ["evil.>"], "storage": "memory",
            "job": "01a1fd98-49e6-720a-ab05-e03bd3d8231b", "attempt": 1, "mission": "staging", "queue": "default",
            "tool": "echo", "args": {"by": name}, "timeout_ms": 300_000, "accepted_at": 1_795_255_978_472_923_u64,
        })
        .to_string();
        let ack = client.request(store, stored.clone().into()).await.unwrap();
        assert!(String::from_utf8_lossy(&ack.payload).contains("\"seq\""), "{name} stores in what is its own");
        // The acknowledgement of a publish, and a stored body, copied to where orders are.
        let asked: Vec<&str> = [store].into_iter().chain(read.iter().copied()).collect();
        for subject in asked {
            let jobs = messages(&operator, "swarm_jobs").await;
            let body = if subject == store { stored.clone() } else { String::new() };
            client.publish_with_reply(subject, JOBS, body.into()).await.unwrap();
            eventually(WAIT, &format!("{name}: {subject} answers to {JOBS}"), || async {
                messages(&operator, "swarm_jobs").await == jobs + 1
            })
            .await;
        }
        // Nor is a right of the API to be had by a reply: a stream is neither made nor deleted nor purged.
        for target in
            ["$JS.API.STREAM.CREATE.evil", "$JS.API.STREAM.DELETE.swarm_dlq", "$JS.API.STREAM.PURGE.swarm_jobs"]
        {
            for subject in read {
                if is_apart(&version) {
                    client.publish_with_reply(*subject, target, "".into()).await.unwrap();
                }
            }
            client.publish_with_reply(store, target, stored.clone().into()).await.unwrap();
        }
        if let Some((stream, filter)) = consumer {
            pushes(&client, name, stream, filter, &version).await;
        }
        client.flush().await.unwrap();
    }
    let jobs = messages(&operator, "swarm_jobs").await;
    assert!(jobs > 0, "nobody purged what was copied there");
    is_no_order(&nats, &dir, jobs).await;
    assert_eq!(settings(&operator).await, before, "no stream was changed, and none is gone");
    let streams = operator.request("STREAM.NAMES", &json!({})).await.unwrap();
    let jetstream::response::Response::Ok::<Value>(names) = streams else { panic!("no names") };
    assert!(!names["streams"].to_string().contains("evil"), "{names}");
    assert_eq!(topology.sigterm(WAIT).await, 0);
}

/// A worker of staging takes all that was copied to the queue, and runs none of it: nothing there is signed.
async fn is_no_order(nats: &Server, dir: &tempfile::TempDir, copied: u64) {
    let objects = overlay("staging");
    let sqlite = [("DATABASE_URL", "sqlite://test.db"), ("POSTGRES_USER", ""), ("POSTGRES_PASSWORD", "")];
    let mut orchestrator = service(&objects, "orchestrator", nats, dir, &sqlite);
    let mut worker = service(&objects, "worker", nats, dir, &[]);
    super::is_ready(&mut orchestrator, "orchestrator").await;
    let metrics = worker.ready(WAIT).await["worker"]["metrics"].as_str().unwrap().to_owned();
    let counted = |page: &str, name: &str| -> f64 {
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let page = eventually(WAIT, "the worker refuses all of it", || async {
        let (_, body) = http_get(&metrics, &[]).await.map_err(|e| e.to_string())?;
        let page = String::from_utf8_lossy(&body).into_owned();
        let refused = counted(&page, "agentforge_attempts_refused_total{");
        if refused >= copied as f64 { Ok(page) } else { Err(format!("{refused} of {copied}")) }
    })
    .await;
    assert_eq!(counted(&page, "agentforge_job_duration_seconds_count{"), 0.0, "a copied body ran");
    for proc in [&mut worker, &mut orchestrator] {
        assert_eq!(proc.sigterm(WAIT).await, 0);
    }
}

/// A push consumer on a stream of its own, with a subject of others to deliver to.
async fn pushes(client: &async_nats::Client, name: &str, stream: &str, filter: &str, version: &str) {
    let stored = client.request(filter.to_owned(), "{}".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&stored.payload).contains("\"seq\""));
    let create = async |n: usize, target: &str| -> Value {
        let config = json!({
            "name": format!("evil{n}"), "deliver_subject": target, "filter_subject": filter,
            "deliver_policy": "last", "ack_policy": "none", "inactive_threshold": 1_000_000_000_u64,
        });
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.evil{n}.{filter}");
        let body = json!({"stream_name": stream, "config": config}).to_string();
        serde_json::from_slice(&client.request(subject, body.into()).await.unwrap().payload).unwrap()
    };
    // Whether the server delivers to a subject that only a stream listens to depends on its version. What arrives there is
    // refused by the worker, as what replies bring.
    let made = create(0, JOBS).await;
    assert!(made["error"].is_null(), "{name}: {made}");
    if is_apart(version) {
        let refused = create(1, "$JS.API.STREAM.DELETE.swarm_dlq").await;
        assert_eq!(refused["error"]["err_code"], 10112, "{name}: {refused}");
    }
}

#[tokio::test]
async fn nobody_but_the_topology_and_an_operator_changes_a_stream() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let (nats, mut topology, _dir, operator) = staging().await;
    let before = settings(&operator).await;
    for name in
        ["orchestrator", "worker", "syncdaemon", "broadcaster", "tactical-api", "console", "backlog", "producer"]
    {
        let client = nats.client(name).await;
        for (stream, subject) in super::rights::STREAMS {
            let config = info(&operator, stream).await["config"].clone();
            let with = |key: &str, value: Value| {
                let mut config = config.clone();
                config[key] = value;
                config
            };
            let mut subjects = config["subjects"].as_array().unwrap().clone();
            subjects.push(json!("_INBOX.orchestrator.>"));
            for changed in [
                with("republish", json!({"src": subject, "dest": JOBS})),
                with("sources", json!([{"name": "swarm_jobs"}])),
                with("mirror", json!({"name": "swarm_jobs"})),
                with("subjects", subjects.into()),
            ] {
                client.publish(format!("$JS.API.STREAM.UPDATE.{stream}"), changed.to_string().into()).await.unwrap();
            }
            let mirror = json!({"name": format!("m_{stream}"), "mirror": {"name": stream}, "storage": "memory"});
            client.publish(format!("$JS.API.STREAM.CREATE.m_{stream}"), mirror.to_string().into()).await.unwrap();
            client.publish(format!("$JS.API.STREAM.DELETE.{stream}"), "".into()).await.unwrap();
        }
        client.flush().await.unwrap();
    }
    assert_eq!(settings(&operator).await, before);
    let streams = operator.request("STREAM.NAMES", &json!({})).await.unwrap();
    let jetstream::response::Response::Ok::<Value>(names) = streams else { panic!("no names") };
    assert!(!names["streams"].to_string().contains("\"m_"), "{names}");
    // What an operator takes away is there again at once, by the topology's hand.
    operator.delete_stream("events").await.unwrap();
    eventually(WAIT, "the topology makes the stream of events again", || async {
        info(&operator, "events").await["config"].is_object()
    })
    .await;
    assert_eq!(topology.sigterm(WAIT).await, 0);
}

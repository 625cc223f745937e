//! Each service does its work with its own user, from the start to the stop, and the server refuses none of it.

use super::{Server, WAIT, is_ready, refused, service};
use crate::manifests::{overlay, secrets};
use agentforge_harness::{eventually, http_get, http_post_with, require};
use async_nats::jetstream;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A request of an API, with its token; a body makes it a POST.
async fn call(url: &str, token: &str, body: Option<Value>) -> (u16, Value) {
    let bearer = format!("Authorization: Bearer {token}");
    let answer = match body {
        Some(body) => http_post_with(url, &[&bearer], &body.to_string()).await,
        None => http_get(url, &[&bearer]).await,
    };
    let (status, body) = answer.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Reads a stream of events until it has said this.
async fn watch_until(base: &str, token: &str, path: &str, wanted: &str) {
    let address = base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut seen, mut part) = (String::new(), [0; 4096]);
    let read = async {
        while !seen.contains(wanted) {
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0, "the stream ended: {seen}");
            seen += &String::from_utf8_lossy(&part[..n]);
        }
    };
    assert!(tokio::time::timeout(WAIT, read).await.is_ok(), "{path} never said {wanted}");
}

/// What the overlay says of the broadcaster's retries, in k8s/components/small-streams.
const RETRIES_MAX_BYTES: u64 = 64 << 20;

#[tokio::test]
async fn every_service_does_its_work_with_its_own_user() {
    let (Some(()), Some(())) = (require("kubectl"), require("nats-server")) else { return };
    let objects = overlay("feature");
    let mut nats = Server::new(&objects, "nats-0", &[]);
    nats.start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut topology = service(
        &objects,
        "topology",
        &nats,
        &dir,
        &[
            ("TOPOLOGY_PARTS", "jobs,webhooks,tactical,evidence"),
            ("EVIDENCE_MAX_BYTES", "4MiB"),
            ("EVIDENCE_BLOBS_MAX_BYTES", "8MiB"),
        ],
    );
    let sqlite = [("DATABASE_URL", "sqlite://test.db"), ("POSTGRES_USER", ""), ("POSTGRES_PASSWORD", "")];
    let mut orchestrator = service(&objects, "orchestrator", &nats, &dir, &sqlite);
    let mut worker =
        service(&objects, "worker", &nats, &dir, &[("SHUTDOWN_GRACE", "1s"), ("HEARTBEAT_INTERVAL", "200ms")]);
    let hook = closed_port();
    let webhooks = [
        ("WEBHOOK_URL", hook.as_str()),
        ("WEBHOOK_URL_FILE", ""),
        ("EGRESS_ALLOW", "127.0.0.1"),
        ("BROADCASTER_SUBJECTS", "todos.events,agentforge.events.>"),
        // A sweep over retries every second, and the end of those that are overdue.
        ("BROADCASTER_RETRY_SCHEDULE", "1s,2s"),
        ("BROADCASTER_RETRIES_MAX_AGE", "2s"),
        ("BROADCASTER_CIRCUIT_FAILURES", "3"),
    ];
    let mut broadcaster = service(&objects, "broadcaster", &nats, &dir, &webhooks);
    let mut tactical = service(&objects, "tactical-api", &nats, &dir, &[]);
    let mut console = service(&objects, "console", &nats, &dir, &[]);
    // At a site the syncdaemon comes through the leaf node; here it has a user of its own.
    let site = overlay("edge");
    let seed = dir.path().join("seed-of-the-syncdaemon");
    std::fs::write(&seed, &secrets()["nats-seeds"]["syncdaemon"]).unwrap();
    let seed = seed.display().to_string();
    let at_hub = [
        ("SYNC_JS_DOMAIN", ""),
        ("NATS_NKEY", seed.as_str()),
        ("NATS_INBOX_PREFIX", "_INBOX.syncdaemon"),
        // This server has no TLS.
        ("NATS_TLS_CA", ""),
        ("EVIDENCE_REPLICAS", "1"),
    ];
    let mut syncdaemon = service(&site, "syncdaemon", &nats, &dir, &at_hub);
    let api = orchestrator.ready(WAIT).await["orchestrator"]["http"].as_str().unwrap().to_owned();
    for (name, proc) in [
        ("topology", &mut topology),
        ("orchestrator", &mut orchestrator),
        ("worker", &mut worker),
        ("broadcaster", &mut broadcaster),
        ("tactical-api", &mut tactical),
        ("console", &mut console),
        ("syncdaemon", &mut syncdaemon),
    ] {
        is_ready(proc, name).await;
    }
    let token = secrets()["orchestrator-secret"]["API_TOKENS"].split([':', ',']).nth(2).unwrap().to_owned();
    let submit = async |body: Value| {
        call(&format!("{api}/v1/jobs"), &token, Some(body)).await.1["id"].as_str().unwrap().to_owned()
    };
    let ended = async |id: &str| {
        eventually(WAIT, "the job ends", || async {
            let job = call(&format!("{api}/v1/jobs/{id}?wait=5s"), &token, None).await.1;
            let state = job["state"].as_str().unwrap_or_default().to_owned();
            if ["succeeded", "failed", "dead", "cancelled"].contains(&state.as_str()) { Ok(job) } else { Err(state) }
        })
        .await
    };
    // A plain job, an operation that is reused, an output that needs the bucket, a dead letter, and a cancel.
    let plain = submit(json!({"tool": "echo", "args": {"n": 1}})).await;
    assert_eq!(ended(&plain).await["state"], "succeeded");
    let again = json!({"tool": "echo", "args": {"n": 2}, "reuse": true});
    let first = submit(again.clone()).await;
    ended(&first).await;
    let second = submit(again).await;
    assert_eq!(ended(&second).await["idempotent_replay"], json!(first));
    let large = submit(json!({"tool": "echo", "args": {"pad": "x".repeat(400_000)}})).await;
    let job = ended(&large).await;
    assert!(
        job["state"] == "succeeded" && job.to_string().contains("job_outputs"),
        "{}",
        job.to_string().chars().take(600).collect::<String>()
    );
    let output =
        http_get(&format!("{api}/v1/jobs/{large}/output"), &[&format!("Authorization: Bearer {token}")]).await.unwrap();
    assert!(output.0 == 200 && output.1.len() > 400_000, "{} {}", output.0, output.1.len());
    let dead = submit(json!({"tool": "fail", "args": {}, "max_attempts": 1})).await;
    assert!(ended(&dead).await["state"] != "succeeded");
    let long = submit(json!({"tool": "sleep", "args": {"seconds": 60}})).await;
    eventually(WAIT, "it runs", || async {
        call(&format!("{api}/v1/jobs/{long}"), &token, None).await.1["state"] == "running"
    })
    .await;
    call(&format!("{api}/v1/jobs/{long}/cancel"), &token, Some(json!({}))).await;
    assert_eq!(ended(&long).await["state"], "cancelled");
    // A hand-back: the worker ends under a job.
    let kept = submit(json!({"tool": "sleep", "args": {"seconds": 30}})).await;
    eventually(WAIT, "it runs", || async {
        call(&format!("{api}/v1/jobs/{kept}"), &token, None).await.1["state"] == "running"
    })
    .await;
    assert_eq!(worker.sigterm(WAIT).await, 0);
    // Evidence, one small and one that needs the bucket.
    let replay = dir.path().join("syncdaemon/agentforge/replay");
    for (name, bytes) in [("small", 100), ("large", 3_000_000)] {
        std::fs::write(dir.path().join(name), vec![7; bytes]).unwrap();
        std::fs::rename(dir.path().join(name), replay.join(name)).unwrap();
    }
    eventually(WAIT, "the replay directory is empty", || {
        let left = std::fs::read_dir(&replay).unwrap().flatten().filter(|e| e.path().is_file()).count();
        async move { left == 0 }
    })
    .await;
    // A marker of the live picture.
    let publish = secrets()["tactical-api-secret"]["TACTICAL_PUBLISH_TOKEN"].clone();
    let base = tactical.ready(WAIT).await["tactical-api"]["http"].as_str().unwrap().to_owned();
    let marker = json!({"id": "m1", "title": "t", "coordinates": [1.0, 2.0], "severity": "low"});
    let (status, answer) = call(&format!("{base}/v1/markers"), &publish, Some(marker)).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    let read = secrets()["tactical-api-secret"]["TACTICAL_READ_TOKENS"].clone();
    watch_until(&base, &read, "/events/stream?snapshot=true", "event: marker").await;
    // Alerts come in, events go out, and what an endpoint was not given is kept.
    let token = secrets()["broadcaster-secret"]["BROADCASTER_TOKEN"].clone();
    let base = broadcaster.ready(WAIT).await["broadcaster"]["http"].as_str().unwrap().to_owned();
    let alert = json!({"version": "4", "status": "firing", "alerts": [{"status": "firing", "labels": {"alertname": "A", "severity": "warning"},
        "annotations": {}, "startsAt": "2030-01-01T00:00:00Z", "fingerprint": "f"}]});
    let (status, answer) = call(&format!("{base}/v1/alerts"), &token, Some(alert)).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    let endpoints = call(&format!("{base}/v1/endpoints"), &token, None).await.1;
    assert!(endpoints.to_string().contains("name"), "{endpoints}");
    assert_eq!(call(&format!("{base}/v1/dead-letters"), &token, None).await.0, 200);

    // The backlog's user looks, and no more.
    let backlog = jetstream::new(nats.client("backlog").await);
    let info: Value = eventually(WAIT, "the backlog is told", || async {
        match backlog.request("CONSUMER.INFO.swarm_jobs.worker-feature", &json!({})).await {
            Ok(jetstream::response::Response::Ok(info)) => Ok::<Value, String>(info),
            Ok(jetstream::response::Response::Err { error }) => Err(error.to_string()),
            Err(e) => Err(e.to_string()),
        }
    })
    .await;
    assert!(info["num_pending"].is_u64());

    // What the streams may hold fits into what the server may store.
    let jsz = nats.get("/jsz?streams=true&config=true").await;
    let streams = jsz["account_details"][0]["stream_detail"].as_array().unwrap();
    // The broadcaster keeps the bound of its retries itself: at a limit of the stream the server would discard the oldest.
    let own = |stream: &Value| (stream["name"] == "broadcaster_retries").then_some(RETRIES_MAX_BYTES);
    let most = |s: &Value| s["config"]["max_bytes"].as_u64().or_else(|| own(s)).expect("every stream has a limit");
    let sum: u64 = streams.iter().map(most).sum();
    let limit = jsz["config"]["max_storage"].as_u64().unwrap();
    assert!(streams.len() >= 12 && sum <= limit, "{} streams may hold {sum} of {limit}", streams.len());
    sweeps(&nats, &base, &token).await;
    repairs(&nats, &api).await;
    for proc in [&mut console, &mut tactical, &mut broadcaster, &mut syncdaemon, &mut orchestrator, &mut topology] {
        assert_eq!(proc.sigterm(WAIT).await, 0);
    }
    assert_eq!(refused(&nats.log()), Vec::<&str>::new());
}

/// An address where nothing listens.
fn closed_port() -> String {
    format!("http://127.0.0.1:{}/", agentforge_harness::free_port())
}

/// Events for an endpoint that is down become retries, and those that are overdue become dead letters, which one asks
/// for and takes out.
async fn sweeps(nats: &Server, base: &str, token: &str) {
    let producer = jetstream::new(nats.client("producer").await);
    for n in 0..3 {
        let event = json!({"n": n}).to_string();
        producer.publish("agentforge.events.custom.order", event.into()).await.unwrap().await.unwrap();
    }
    let letters = eventually(WAIT, "overdue retries are dead letters", || async {
        let page = call(&format!("{base}/v1/dead-letters"), token, None).await.1;
        let letters = page["dead_letters"].as_array().cloned().unwrap_or_default();
        if letters.is_empty() { Err(page.to_string()) } else { Ok(letters) }
    })
    .await;
    assert!(!letters.is_empty());
}

/// A stream and a consumer that somebody took away are there again: the topology's and the orchestrator's doing.
async fn repairs(nats: &Server, api: &str) {
    let operator = jetstream::new(nats.client("operator").await);
    operator.delete_stream("swarm_results").await.unwrap();
    operator.delete_stream("tactical").await.unwrap();
    operator.get_stream("swarm_jobs").await.unwrap().delete_consumer("worker-feature").await.unwrap();
    eventually(WAIT, "all are made again", || async {
        let jobs = operator.get_stream("swarm_jobs").await.map_err(|e| e.to_string())?;
        jobs.consumer_info("worker-feature").await.map_err(|e| e.to_string())?;
        let results = operator.get_stream("swarm_results").await.map_err(|e| e.to_string())?;
        results.consumer_info("orchestrator-feature").await.map_err(|e| e.to_string())?;
        operator.get_stream("tactical").await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    eventually(WAIT, "the orchestrator is ready again", || async {
        http_get(&format!("{api}/readyz"), &[]).await.is_ok_and(|(status, _)| status == 200)
    })
    .await;
}

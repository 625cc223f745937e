//! Replicas, a NATS server that starts late, a stop with requests in flight, and secrets that must not appear.

use crate::{
    sink::{Answer, OK, Sink, status},
    stage::{SECRET, SOON, Stage, endpoint, start},
};
use agentforge_harness::{NatsOptions, NatsServer, eventually, free_port, require};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn of_three_replicas_one_delivers_each_event() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| Answer::Status(200, "", Duration::from_millis(5))).await);
    let url = sink.url();
    let envs = [("WEBHOOK_URL", url.as_str()), ("BROADCASTER_CONCURRENCY", "8"), ("BROADCASTER_TIMEOUT", "30s")];
    let replicas = [stage.broadcaster(&envs).await, stage.broadcaster(&envs).await, stage.broadcaster(&envs).await];
    stage.publish(0..1000).await;
    eventually(SOON, "all arrive", || async { sink.delivered().len() == 1000 }).await;
    let twice: Vec<_> = sink.delivered().into_iter().filter(|(_, n)| *n != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let mut shares = Vec::new();
    for replica in &replicas {
        shares.push(replica.metric("broadcaster_messages_processed_total{status=\"delivered\"}").await);
    }
    assert!(shares.iter().all(|n| *n > 0.0), "the work is shared: {shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_without_nats_and_delivers_when_it_comes_and_survives_its_loss() {
    let Some(()) = require("nats-server") else { return };
    let sink = Sink::start(|_| OK).await;
    let port = free_port();
    let broadcaster = start(&format!("nats://127.0.0.1:{port}"), &[("WEBHOOK_URL", &sink.url())]).await;
    assert_eq!(broadcaster.get("/healthz").await.0, 200, "it is live");
    let (code, body) = broadcaster.get("/health").await;
    assert_eq!((code, body["checks"]["nats"]["ok"].as_bool()), (503, Some(false)));
    assert_eq!(broadcaster.metric("broadcaster_nats_connected").await, 0.0);

    let nats = NatsServer::start(NatsOptions::default()).await;
    // The harness takes its own port; a forwarder listens where the broadcaster connects.
    tokio::spawn(forward(port, nats.address()));
    broadcaster.active().await;
    assert_eq!(broadcaster.get("/health").await.0, 200);
    let mut stage = Stage::of(nats);
    stage.publish(0..10).await;
    eventually(SOON, "events arrive", || async { sink.delivered().len() == 10 }).await;

    stage.nats.kill9();
    eventually(SOON, "it is not ready", || async { broadcaster.get("/health").await.0 == 503 }).await;
    stage.nats.restart().await;
    broadcaster.active().await;
    stage.publish(10..20).await;
    eventually(SOON, "events arrive again", || async { sink.delivered().len() == 20 }).await;
}

async fn forward(port: u16, to: String) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    while let Ok((mut near, _)) = listener.accept().await {
        let to = to.clone();
        tokio::spawn(async move {
            if let Ok(mut far) = tokio::net::TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_in_flight_and_hands_back_the_rest() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) =
        (Stage::new().await, Sink::start(|_| Answer::Status(200, "", Duration::from_millis(700))).await);
    let hang = Sink::start(|_| Answer::Hang).await;
    let file = [
        endpoint("slow", &sink.url(), "concurrency = 4\ntimeout = \"20s\""),
        endpoint("hanging", &hang.url(), "concurrency = 2\ntimeout = \"60s\""),
    ];
    let file = stage.endpoints(&file.concat());
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("SHUTDOWN_GRACE", "8s")];
    let mut first = stage.broadcaster(&envs).await;
    stage.publish(0..40).await;
    eventually(SOON, "requests are in flight", || async { sink.count() >= 4 && hang.count() >= 2 }).await;
    assert_eq!(first.proc.sigterm(SOON).await, 0, "a drain is a success");
    assert_eq!(sink.delivered().len(), sink.count(), "what was in flight was finished");
    let finished = sink.count();
    hang.answer(|_| OK);
    // What was pulled and what hung comes to the next one at once, and not after its ack wait.
    let _second = stage.broadcaster(&envs).await;
    eventually(SOON, "the rest arrives", || async { sink.delivered().len() == 40 && hang.delivered().len() == 40 })
        .await;
    assert!(finished < 40);
    assert_eq!(sink.count(), 40, "nothing was delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_url_stands_in_logs_metrics_or_pages() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) =
        (Stage::new().await, Sink::start(|r| if r.body.len() % 2 == 0 { OK } else { status(500) }).await);
    let url = format!("http://usern4me:passw0rd@{}/T0KEN/hook?key=querysecr3t", sink.address);
    let more = format!("secrets = [\"{SECRET}\"]\nheaders = {{ Authorization = \"Bearer headersecr3t\" }}");
    let file = [endpoint("a", &url, &more), endpoint("b", "http://127.0.0.1:1/T0KEN?key=querysecr3t", "")].concat();
    let file = stage.endpoints(&file);
    let token = "apit0ken-of-sixteen";
    let envs = [
        ("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()),
        ("BROADCASTER_RETRY_SCHEDULE", "1s"),
        ("BROADCASTER_CIRCUIT_FAILURES", "2"),
        ("LOG_LEVEL", "debug"),
    ];
    let broadcaster = stage.broadcaster(&[&envs[..], &[("BROADCASTER_TOKEN", "")]].concat()).await;
    stage.publish(0..20).await;
    stage.publish_with("todos.events", &[], "bodysecr3t is not json").await;
    eventually(SOON, "something died", || async { !broadcaster.dead_letters().await.is_empty() }).await;
    // A file that is broken, with a secret on the line.
    stage.endpoints("[[endpoint]]\nname = \"a\"\nurl = \"https://h/T0KEN\nsecret = \"whsec_querysecr3t\"\n");
    eventually(SOON, "the file is refused", || async {
        broadcaster.get("/readyz").await.1["checks"]["endpoints-file"]["ok"] == false
    })
    .await;
    let mut seen = broadcaster.proc.full_log();
    seen += &broadcaster.metrics().await;
    for path in ["/health", "/healthz", "/readyz", "/v1/endpoints", "/v1/deliveries", "/v1/dead-letters"] {
        seen += &broadcaster.get(path).await.1.to_string();
    }
    let secrets =
        ["usern4me", "passw0rd", "T0KEN", "querysecr3t", "headersecr3t", SECRET, &SECRET[6..], token, "bodysecr3t"];
    for secret in secrets {
        let lines: Vec<&str> = seen.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret} appears in {lines:?}");
    }
    assert!(seen.contains("\"endpoint\":\"a\""), "names of endpoints do");
    assert_eq!(sink.requests()[0].headers["authorization"], "Bearer headersecr3t", "but the endpoint gets them");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_it_subscribes_only_where_it_is_told_to() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|r| if r.attempt == 1 { status(500) } else { OK }).await);
    let file = stage.endpoints(&endpoint("core", &sink.url(), "subjects = [\"plain.events\"]\nformat = \"raw\""));
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("BROADCASTER_RETRY_SCHEDULE", "1s,1s")];
    let restarted = stage.broadcaster_only(&envs).await;
    eventually(SOON, "it says that no stream keeps the subject", || async {
        restarted.endpoint("core").await["detail"].as_str().is_some_and(|d| d.contains("no stream keeps plain.events"))
    })
    .await;
    drop(restarted);
    let _broadcaster = stage.broadcaster(&[&envs[..], &[("BROADCASTER_CORE_FALLBACK", "on")]].concat()).await;
    let client = stage.client().await;
    client.publish("plain.events", "{\"n\":1}".into()).await.unwrap();
    client.flush().await.unwrap();
    eventually(SOON, "the retry of what no stream had arrives", || async { sink.delivered().len() == 1 }).await;
    assert_eq!(sink.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_and_a_stop_does_not_wait_for_it() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let file = stage.endpoints(&endpoint("paced", &sink.url(), "rate = 10.0"));
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap())];
    let mut broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..21).await;
    eventually(SOON, "all arrive", || async { sink.delivered().len() == 21 }).await;
    let requests = sink.requests();
    let took = requests[20].at - requests[0].at;
    assert!(took >= Duration::from_millis(1900), "20 steps of 100 ms took {took:?}");
    stage.endpoints(&endpoint("paced", &sink.url(), "rate = 0.01"));
    eventually(SOON, "the slower rate is taken up", || async { broadcaster.endpoint("paced").await["rate"] == 0.01 })
        .await;
    assert_eq!(broadcaster.proc.sigterm(Duration::from_secs(20)).await, 0);
}

//! Every row of the table: what an answer does to the message and to the endpoint.

use crate::{
    sink::{Answer, OK, Sink, connect_refused, status},
    stage::{SOON, Stage, endpoint},
};
use agentforge_harness::{eventually, require};
use std::time::Duration;

/// Retries are seconds apart here; the server keeps schedules to the second.
const SCHEDULE: (&str, &str) = ("BROADCASTER_RETRY_SCHEDULE", "1s,2s");

#[tokio::test(flavor = "multi_thread")]
async fn every_status_has_its_outcome() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    // The outcome of each answer, and how often an endpoint with only this answer is called.
    let rows: [(u16, usize, &str); 14] = [
        (200, 1, ""),
        (204, 1, ""),
        (301, 3, "redirect"),
        (307, 3, "redirect"),
        (400, 1, "client_error"),
        (401, 1, "client_error"),
        (404, 1, "client_error"),
        (422, 1, "client_error"),
        (408, 3, "client_error"),
        (425, 3, "client_error"),
        (429, 3, "too_many_requests"),
        (410, 1, "gone"),
        (500, 3, "server_error"),
        (503, 3, "service_unavailable"),
    ];
    let (mut sinks, mut file) = (Vec::new(), String::new());
    for (code, ..) in rows {
        // A redirect leads to a place that must not be called.
        let sink = Sink::start(move |r| match r.path.as_str() {
            "/hook" => Answer::Status(code, "location: /elsewhere\r\n", Duration::ZERO),
            _ => OK,
        })
        .await;
        file += &endpoint(&format!("e{code}"), &sink.url(), "");
        sinks.push(sink);
    }
    let file = stage.endpoints(&file);
    let broadcaster = stage.broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), SCHEDULE]).await;
    stage.publish(0..1).await;
    let dead = eventually(SOON, "each came to its end", || async {
        let dead = broadcaster.dead_letters().await;
        let wanted = rows.iter().filter(|(.., reason)| !reason.is_empty()).count();
        if dead.len() == wanted { Ok(dead) } else { Err(format!("{dead:?}")) }
    })
    .await;
    for ((code, asked, reason), sink) in rows.iter().zip(&sinks) {
        let requests = sink.requests();
        assert_eq!(requests.len(), *asked, "{code}");
        assert!(requests.iter().all(|r| r.path == "/hook"), "{code}: a redirect was followed");
        let letter = dead.iter().find(|l| l["endpoint"] == format!("e{code}"));
        assert_eq!(letter.is_some(), !reason.is_empty(), "{code}");
        if let Some(letter) = letter {
            assert_eq!((letter["reason"].as_str(), letter["attempts"].as_u64()), (Some(*reason), Some(*asked as u64)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_follow_the_schedule_and_a_wish_for_later_is_granted() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let failing = Sink::start(|_| status(500)).await;
    let polite =
        Sink::start(|r| if r.attempt == 1 { Answer::Status(503, "retry-after: 4\r\n", Duration::ZERO) } else { OK })
            .await;
    let file =
        stage.endpoints(&[endpoint("failing", &failing.url(), ""), endpoint("polite", &polite.url(), "")].concat());
    let broadcaster = stage
        .broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("BROADCASTER_RETRY_SCHEDULE", "1s,3s")])
        .await;
    stage.publish(0..1).await;
    eventually(SOON, "it is given up", || async { broadcaster.dead_letters().await.len() == 1 }).await;
    eventually(SOON, "the polite one has it", || async { polite.count() == 2 }).await;
    let times: Vec<_> = failing.requests().iter().map(|r| r.at).collect();
    // Never earlier; how much later depends on the machine.
    assert_eq!(times.len(), 3);
    assert!(times[1] - times[0] >= Duration::from_millis(950), "{:?}", times[1] - times[0]);
    assert!(times[2] - times[1] >= Duration::from_millis(2950), "{:?}", times[2] - times[1]);
    let waited = polite.requests()[1].at - polite.requests()[0].at;
    assert!(waited >= Duration::from_millis(3950), "{waited:?}");
    let log = broadcaster.deliveries().await;
    let outcomes: Vec<_> =
        log.iter().filter(|a| a["endpoint"] == "failing").map(|a| a["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["retried", "retried", "dead"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_for_later_is_granted_in_every_form_and_with_every_status() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    // Made when it is asked for, so that it is four seconds ahead, and the last of them not over.
    let date =
        |format: &'static str| move || (jiff::Timestamp::now() + Duration::from_secs(5)).strftime(format).to_string();
    let seconds = |text: &'static str| move || text.to_owned();
    type Wish = Box<dyn Fn() -> String + Send + Sync>;
    let rows: [(&str, u16, Wish); 8] = [
        ("imf", 503, Box::new(date("%a, %d %b %Y %H:%M:%S GMT"))),
        ("rfc850", 503, Box::new(date("%A, %d-%b-%y %H:%M:%S GMT"))),
        ("asctime", 429, Box::new(date("%a %b %e %H:%M:%S %Y"))),
        ("e500", 500, Box::new(seconds("4"))),
        ("e502", 502, Box::new(seconds("4"))),
        ("e302", 302, Box::new(seconds("4"))),
        ("e408", 408, Box::new(seconds("4"))),
        ("fraction", 504, Box::new(seconds("4.5"))),
    ];
    let (mut sinks, mut file) = (Vec::new(), String::new());
    for (name, status, wish) in rows {
        let sink = Sink::start(move |r| match r.attempt {
            1 => Answer::Status(
                status,
                Box::leak(format!("retry-after: {}\r\n", wish()).into_boxed_str()),
                Duration::ZERO,
            ),
            _ => OK,
        })
        .await;
        file += &endpoint(name, &sink.url(), "");
        sinks.push((name, sink));
    }
    let file = stage.endpoints(&file);
    let _broadcaster = stage.broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), SCHEDULE]).await;
    stage.publish(0..1).await;
    for (name, sink) in sinks {
        eventually(SOON, "the second attempt arrives", || async { sink.count() == 2 }).await;
        let requests = sink.requests();
        let waited = requests[1].at - requests[0].at;
        assert!(waited >= Duration::from_millis(3900), "{name}: {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_are_tried_again_and_named() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let once = |answer: Answer| move |r: &crate::sink::Request| if r.attempt == 1 { answer.clone() } else { OK };
    let (reset, half, hang, drip) = (
        Sink::start(once(Answer::Close)).await,
        Sink::start(once(Answer::MidBody)).await,
        Sink::start(once(Answer::Hang)).await,
        Sink::start(once(Answer::Drip)).await,
    );
    let refused = format!("http://{}/", connect_refused().await);
    // An untrusted certificate.
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = rustls_server(&own);
    let untrusted = Sink::start_tls(tls, |_| OK).await;
    let untrusted_url = format!("https://127.0.0.1:{}/", untrusted.address.port());
    let file: String = [
        ("reset", reset.url()),
        ("half", half.url()),
        ("hang", hang.url()),
        ("drip", drip.url()),
        ("refused", refused),
        ("tls", untrusted_url),
    ]
    .map(|(name, url)| endpoint(name, &url, "timeout = \"1s\""))
    .concat();
    let file = stage.endpoints(&file);
    let broadcaster = stage.broadcaster(&[("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), SCHEDULE]).await;
    stage.publish(0..1).await;
    for sink in [&reset, &half, &hang, &drip] {
        eventually(SOON, "the second attempt arrives", || async { sink.delivered().len() == 1 }).await;
        assert_eq!(sink.count(), 2);
    }
    let dead = eventually(SOON, "those that never work are dead", || async {
        Some(broadcaster.dead_letters().await).filter(|all| all.len() == 2)
    })
    .await;
    for (name, reason) in [("refused", "connect"), ("tls", "tls")] {
        let letter = dead.iter().find(|l| l["endpoint"] == name).unwrap();
        assert_eq!(letter["reason"], reason, "{letter}");
    }
    assert_eq!(untrusted.count(), 0);
    let log = broadcaster.deliveries().await;
    for (name, reason) in [("reset", "reset"), ("half", "reset"), ("hang", "timeout"), ("drip", "timeout")] {
        let first = log.iter().find(|a| a["endpoint"] == name && a["attempt"] == 1).unwrap();
        assert_eq!(first["reason"], reason, "{first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_works_with_an_authority_that_is_named() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let ca = stage.dir.path().join("ca.pem");
    std::fs::write(&ca, own.cert.pem()).unwrap();
    let sink = Sink::start_tls(rustls_server(&own), |_| OK).await;
    let url = format!("https://localhost:{}/x", sink.address.port());
    let envs =
        [("WEBHOOK_URL", url.as_str()), ("BROADCASTER_CA_FILE", ca.to_str().unwrap()), ("EGRESS_ALLOW", "localhost")];
    let _broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..50).await;
    eventually(SOON, "all arrive", || async { sink.delivered().len() == 50 }).await;
}

fn rustls_server(own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_gets_nothing_more_until_it_is_enabled() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| status(410)).await);
    let envs = [("WEBHOOK_URL", sink.url())];
    let envs: Vec<(&str, &str)> = envs.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let mut broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..1).await;
    let disabled = |b: &crate::stage::Broadcaster| {
        let http = b.http.clone();
        async move {
            let (_, body) = agentforge_harness::http_get(&format!("{http}/v1/endpoints"), &[]).await.unwrap();
            String::from_utf8(body).unwrap().contains("\"disabled\"")
        }
    };
    eventually(SOON, "it is disabled", || disabled(&broadcaster)).await;
    assert_eq!(broadcaster.metric("broadcaster_endpoint_circuit_state{endpoint=\"default\"}").await, 3.0);
    let before = sink.count();
    sink.answer(|_| OK);
    stage.publish(1..5).await;
    // A restart remembers.
    assert_eq!(broadcaster.proc.sigterm(SOON).await, 0);
    let broadcaster = stage.broadcaster_only(&envs).await;
    eventually(SOON, "it is disabled after a restart", || disabled(&broadcaster)).await;
    assert_eq!(sink.count(), before, "a disabled endpoint was called");
    assert_eq!(broadcaster.post("/v1/endpoints/default/enable", "", "").await.0, 200);
    eventually(SOON, "what waited arrives", || async { sink.delivered().len() == 4 }).await;
}

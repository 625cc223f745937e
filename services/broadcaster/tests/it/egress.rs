//! Which addresses are refused: by name, by address, by redirect; and what an allow-list opens.

use crate::{
    sink::{OK, Sink},
    stage::{SOON, Stage, endpoint},
};
use agentforge_broadcaster::{Broadcaster, Config};
use agentforge_config::Reader;
use agentforge_egress::{Resolve, Resolving};
use agentforge_harness::{eventually, http_get, require};
use agentforge_runtime::{Runtime, Service};
use futures_util::FutureExt;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn places_inside_are_refused_with_a_clear_reason_and_the_list_opens_what_it_names() {
    let Some(()) = require("nats-server") else { return };
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let port = sink.address.port();
    let refused = [
        ("plain", format!("http://127.0.0.1:{port}/")),
        ("loopback", format!("https://127.0.0.1:{port}/")),
        ("decimal", format!("https://2130706433:{port}/")),
        ("mapped", format!("https://[::ffff:127.0.0.1]:{port}/")),
        ("nat64", "https://[64:ff9b::a9fe:a9fe]/".to_owned()),
        ("metadata", "https://169.254.169.254/latest/meta-data".to_owned()),
        ("private", "https://10.0.0.1/".to_owned()),
        ("linklocal", "https://[fe80::1]/".to_owned()),
        // The system's resolver says where this leads.
        ("byname", format!("https://localhost:{port}/")),
    ];
    let mut file: String = refused.iter().map(|(name, url)| endpoint(name, url, "")).collect();
    file += &endpoint("open", &format!("http://127.0.0.2:{port}/"), "");
    let file = stage.endpoints(&file);
    let envs = [("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()), ("EGRESS_ALLOW", "127.0.0.2")];
    // A check names each invalid entry in the file; what a name resolves to only a call finds out.
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_agentforge-broadcaster"))
        .arg("--check-config")
        .envs([("ENV", "dev"), ("NATS_URL", stage.nats.url().as_str())])
        .envs(envs)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(64), "{said}");
    for (name, _) in refused.iter().filter(|(name, _)| *name != "byname") {
        assert!(said.contains(&format!("endpoint {name}: url: ")), "{name}: {said}");
    }
    assert!(!said.contains("latest/meta-data") && !said.contains("endpoint open"), "{said}");

    // A start continues with the others. Nothing becomes a dead letter: the events of those that may not be called
    // wait.
    let mut broadcaster = stage.broadcaster_only(&envs).await;
    eventually(SOON, "it is ready", || async { broadcaster.get("/readyz").await.0 == 200 }).await;
    eventually(SOON, "the open one delivers", || async { broadcaster.endpoint("open").await["state"] == "active" })
        .await;
    eventually(SOON, "the others have their consumers", || async {
        let metrics = broadcaster.metrics().await;
        refused.iter().all(|(name, _)| metrics.contains(&format!("broadcaster_pending{{endpoint=\"{name}\"}}")))
    })
    .await;
    stage.publish(0..1).await;
    let all = eventually(SOON, "all of them wait", || async {
        let all = broadcaster.endpoints().await;
        let wait = all.iter().filter(|e| e["state"] == "waiting" && e["pending"] == 1).count();
        if wait == refused.len() { Ok(all) } else { Err(all) }
    })
    .await;
    for (name, words) in
        [("plain", "127.0.0.1"), ("metadata", "metadata address"), ("byname", "localhost is at a loopback address")]
    {
        let detail = all.iter().find(|e| e["name"] == name).unwrap()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{name}: {detail}");
    }
    for (name, _) in &refused {
        let held = format!("broadcaster_endpoint_held{{endpoint=\"{name}\"}}");
        assert_eq!(broadcaster.metric(&held).await, 1.0, "{name}");
    }
    assert_eq!(broadcaster.metric("broadcaster_endpoint_held{endpoint=\"open\"}").await, 0.0);
    // 127.0.0.2 is this machine, too, but the sink listens on 127.0.0.1: what matters is that it was tried.
    let open = eventually(SOON, "the open one was tried", || async {
        broadcaster.deliveries().await.into_iter().find(|a| a["endpoint"] == "open")
    })
    .await;
    assert_ne!(open["reason"], "egress_refused", "{open}");
    assert_eq!(broadcaster.dead_letters().await.len(), 0);
    assert_eq!(sink.count(), 0, "somebody inside was called");

    // The operator opens what he meant: what waited goes out, as its first attempt.
    assert_eq!(broadcaster.proc.sigterm(SOON).await, 0);
    let broadcaster = stage.broadcaster_only(&[envs[0], ("EGRESS_ALLOW", "127.0.0.1")]).await;
    eventually(SOON, "it arrives", || async { sink.delivered().len() == 1 }).await;
    let plain = eventually(SOON, "it is reported", || async {
        broadcaster.deliveries().await.into_iter().find(|a| a["endpoint"] == "plain")
    })
    .await;
    assert_eq!((plain["outcome"].as_str(), plain["attempt"].as_u64()), (Some("delivered"), Some(1)));
    assert_eq!(broadcaster.endpoint("plain").await["state"], "active");
}

/// First an address that may be called, then another one that may not, each time it is asked.
#[derive(Debug, Default)]
struct Rebinding {
    asked: AtomicUsize,
}

impl Resolve for Rebinding {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        let n = self.asked.fetch_add(1, Ordering::SeqCst);
        let ip: IpAddr = if n.is_multiple_of(2) { "127.0.0.9" } else { "127.0.0.1" }.parse().unwrap();
        Box::pin(async move { Ok(vec![ip]) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_between_check_and_connect_leads_nowhere() {
    let Some(()) = require("nats-server") else { return };
    // There is a listener on 127.0.0.1, which is not allowed; 127.0.0.9 is allowed, and has no listener.
    let stage = Stage::new().await;
    let inside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resolver = Arc::new(Rebinding::default());
    let url = format!("https://rebind.test:{}/", inside.local_addr().unwrap().port());
    let pairs = [
        ("NATS_URL", stage.nats.url()),
        ("HTTP_PORT", "0".to_owned()),
        ("METRICS_PORT", "0".to_owned()),
        ("WEBHOOK_URL", url),
        ("EGRESS_ALLOW", "127.0.0.9".to_owned()),
        ("BROADCASTER_RETRY_SCHEDULE", "1s,1s,1s".to_owned()),
    ];
    let source: BTreeMap<String, String> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let mut reader = Reader::new(&source);
    let mut config = Config::read(&mut reader);
    reader.finish().unwrap();
    // A name would open its ordinary addresses, so only the address is used.
    config.resolver = Some(resolver.clone());
    config.egress = agentforge_egress::Policy::from_entries(["127.0.0.9"]).0;
    let runtime = Runtime::for_tests("broadcaster");
    let stop = runtime.stopping();
    let service = Broadcaster::build(config, runtime).await.unwrap();
    let http = service.endpoints().http.unwrap();
    let running = tokio::spawn(service.run());
    let page = |path: &'static str| async move {
        let answer = agentforge_harness::http_get(&format!("http://{http}{path}"), &[]).await;
        answer.map(|(_, body)| String::from_utf8(body).unwrap()).unwrap_or_default()
    };
    eventually(SOON, "it delivers", || async { page("/v1/endpoints").await.contains("\"active\"") }).await;
    stage.publish(0..1).await;
    eventually(SOON, "both addresses were given", || async { resolver.asked.load(Ordering::SeqCst) >= 4 }).await;
    eventually(SOON, "it waits and says why", || async {
        page("/v1/endpoints").await.contains("rebind.test is at a loopback address")
    })
    .await;
    assert!(inside.accept().now_or_never().is_none(), "the address that was not allowed was called");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_of_dev_an_endpoint_without_a_secret_is_reported_once_and_in_the_list() {
    let Some(()) = require("nats-server") else { return };
    let stage = Stage::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("endpoints.toml");
    let table =
        |name: &str, more: &str| format!("[[endpoint]]\nname = \"{name}\"\nurl = \"https://127.0.0.1:9/\"\n{more}\n");
    let secret = "secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]";
    let text = [table("bare", ""), table("signed", secret), table("chat", "format = \"slack\"")].concat();
    std::fs::write(&file, text).unwrap();
    let path = ("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap());
    let token = ("BROADCASTER_TOKEN", "a-token-of-the-operator");
    for (env, is_told) in [("production", true), ("dev", false)] {
        let broadcaster = stage
            .broadcaster_only(&[
                ("ENV", env),
                ("BIND_ADDR", "127.0.0.1"),
                ("SHUTDOWN_PAUSE", "0s"),
                // Nothing else makes streams here.
                ("NATS_TOPOLOGY", "make"),
                path,
                token,
            ])
            .await;
        let header = "Authorization: Bearer a-token-of-the-operator";
        let list = eventually(SOON, "all are active", || async {
            let (_, body) = http_get(&format!("{}/v1/endpoints", broadcaster.http), &[header]).await.unwrap();
            let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let all = list["endpoints"].as_array().cloned().unwrap_or_default();
            if all.len() == 3 && all.iter().all(|e| e["state"] == "active") { Ok(all) } else { Err(list) }
        })
        .await;
        for endpoint in &list {
            let detail = endpoint["detail"].as_str().unwrap_or_default();
            let is_bare = endpoint["name"] == "bare" && is_told;
            assert_eq!(detail.contains("not signed"), is_bare, "{env}: {endpoint}");
        }
        let log = broadcaster.proc.full_log();
        assert_eq!(log.matches("requests are not signed").count(), usize::from(is_told), "{env}: {log}");
    }
}

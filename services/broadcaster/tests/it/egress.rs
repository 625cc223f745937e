//! Where nobody may be called: by name, by address, by redirect; and what an allow-list opens.

use crate::{
    sink::{OK, Sink},
    stage::{SOON, Stage, endpoint},
};
use agentforge_broadcaster::{Broadcaster, Config};
use agentforge_config::Reader;
use agentforge_egress::{Resolve, Resolving};
use agentforge_harness::{eventually, require};
use agentforge_runtime::{Runtime, Service};
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
    let envs = [
        ("BROADCASTER_ENDPOINTS_FILE", file.to_str().unwrap()),
        ("EGRESS_ALLOW", "127.0.0.2"),
        ("BROADCASTER_RETRY_SCHEDULE", "1s"),
    ];
    let broadcaster = stage.broadcaster(&envs).await;
    stage.publish(0..1).await;
    let dead = eventually(SOON, "all of them are dead letters", || async {
        let mut dead = broadcaster.dead_letters().await;
        dead.retain(|letter| letter["endpoint"] != "open");
        if dead.len() == refused.len() { Ok(dead) } else { Err(format!("{dead:?}")) }
    })
    .await;
    assert!(dead.iter().all(|l| l["reason"] == "egress_refused"), "{dead:?}");
    for (name, words) in [
        ("plain", "http to 127.0.0.1"),
        ("metadata", "metadata address"),
        ("byname", "localhost is at a loopback address"),
    ] {
        let detail = dead.iter().find(|l| l["endpoint"] == name).unwrap()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words) || name == "plain" && detail.contains("127.0.0.1"), "{name}: {detail}");
    }
    // 127.0.0.2 is this machine, too, but the sink listens on 127.0.0.1: what matters is that it was tried.
    let tried = broadcaster.deliveries().await;
    let open = tried.iter().find(|a| a["endpoint"] == "open").unwrap();
    assert_ne!(open["reason"], "egress_refused", "{open}");
    assert_eq!(sink.count(), 0, "somebody inside was called");
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
    // The sink listens on 127.0.0.1, which is not allowed; 127.0.0.9 is, and nobody listens there.
    let (stage, sink) = (Stage::new().await, Sink::start(|_| OK).await);
    let resolver = Arc::new(Rebinding::default());
    let url = format!("http://rebind.test:{}/", sink.address.port());
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
    // Plain http is for hosts that are named; a name opens its ordinary addresses, so the range alone is.
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
    eventually(SOON, "it is given up", || async { page("/v1/dead-letters").await.contains("\"reason\"") }).await;
    assert_eq!(sink.count(), 0, "the address that was not allowed was called");
    stop.cancel();
    running.await.unwrap().unwrap();
}

//! Three servers: each consumer counts once in the compact family, regardless of its leader and of servers that are
//! down.

use crate::support::{Exporter, Page, jetstream, make_consumer, make_stream, monitor, publish, step_down, take};
use agentforge_harness::{NatsCluster, NatsOptions, eventually, require};
use std::{collections::BTreeMap, time::Duration};

const MESSAGES: usize = 9;
const SETTLED: Duration = Duration::from_secs(60);

/// Consumers of a stream; AGENTFORGE_SOAK=1 makes many.
fn consumers() -> usize {
    if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { 300 } else { 24 }
}

fn targets(cluster: &NatsCluster) -> String {
    let all = cluster.servers().iter().zip(["n1", "n2", "n3"]);
    all.map(|(server, id)| format!("{id},{}", server.monitor_url())).collect::<Vec<_>>().join(",")
}

/// A stream with one replica and one with three, each with consumers; of `c0` some messages are taken.
async fn furnish(cluster: &NatsCluster) -> async_nats::jetstream::Context {
    let js = jetstream(&cluster.url()).await;
    for (name, replicas) in [("ONE", 1), ("THREE", 3)] {
        let stream = make_stream(&js, name, replicas).await;
        publish(&js, &format!("{name}.a"), MESSAGES).await;
        for n in 0..consumers() {
            let consumer = make_consumer(&stream, &format!("c{n}")).await;
            if n == 0 {
                take(&consumer, 4, 3).await;
            }
        }
    }
    js
}

/// What is true of the compact family at every moment: no series appears twice (the parser checks), and none has
/// another value than this.
fn is_true(page: &Page) -> Result<(), String> {
    for stream in ["ONE", "THREE"] {
        let with = [("account", "$G"), ("stream", stream)];
        let pending = page.matching("nats_jetstream_consumer_num_pending", &with);
        for (labels, value) in page.of("nats_jetstream_consumer_num_pending") {
            let expected = if labels["consumer"] == "c0" { MESSAGES - 4 } else { MESSAGES };
            if value != expected as f64 {
                return Err(format!("{labels:?} {value}"));
            }
        }
        let messages = page.matching("nats_jetstream_stream_messages", &with);
        if pending.len() > consumers() || messages.len() > 1 || messages.iter().any(|n| *n != MESSAGES as f64) {
            return Err(format!("{stream}: {pending:?} {messages:?}"));
        }
    }
    Ok(())
}

fn is_complete(page: &Page) -> Result<(), String> {
    is_true(page)?;
    let sum: f64 = page.of("nats_jetstream_consumer_num_pending").values().sum();
    let expected = 2 * (consumers() * MESSAGES - 4);
    let info = page.of("nats_jetstream_consumer_leader_info").len();
    let streams = page.of("nats_jetstream_stream_messages").len();
    let all = (sum, info, streams);
    if all == (expected as f64, 2 * consumers(), 2) { Ok(()) } else { Err(format!("{all:?}")) }
}

async fn settled(exporter: &Exporter) -> Page {
    eventually(SETTLED, "each consumer is told once", || async {
        let page = exporter.scrape().await;
        is_complete(&page).map(|()| page)
    })
    .await
}

/// Who leads JetStream, and each stream's consumers, as the servers say now.
async fn leaders(cluster: &NatsCluster) -> (String, BTreeMap<[String; 2], String>) {
    let meta_leader = cluster.wait_for_leader().await;
    let mut leaders = BTreeMap::new();
    for server in cluster.servers() {
        let jsz = monitor(server, "jsz?consumers=true").await;
        let name = monitor(server, "varz").await["server_name"].as_str().unwrap().to_owned();
        for stream in jsz["account_details"][0]["stream_detail"].as_array().unwrap() {
            for consumer in stream["consumer_detail"].as_array().unwrap() {
                if consumer["cluster"]["leader"] == name.as_str() {
                    let key = [&stream["name"], &consumer["name"]].map(|v| v.as_str().unwrap().to_owned());
                    leaders.insert(key, name.clone());
                }
            }
        }
    }
    (meta_leader, leaders)
}

#[tokio::test]
async fn sums_count_each_consumer_once_and_stock_rows_are_all_replicas() {
    let Some(()) = require("nats-server") else { return };
    let cluster = NatsCluster::start(NatsOptions::default()).await;
    furnish(&cluster).await;
    let exporter = Exporter::start(&["-varz", "-routez", "-jsz=all", &targets(&cluster)]).await;
    // The same where each server has its own exporter, which does not know the others' answers.
    let mut own = Vec::new();
    for server in cluster.servers() {
        own.push(Exporter::start(&["--no-stock-jetstream", &server.monitor_url()]).await);
    }
    // All of one time in which no leader changed: on a busy machine heartbeats are missed.
    let (page, rows, (meta_leader, leaders)) = eventually(SETTLED, "no leader changes", || async {
        let before = leaders(&cluster).await;
        let page = settled(&exporter).await;
        let mut rows = Vec::new();
        for exporter in &own {
            rows.extend(exporter.scrape().await.of("nats_jetstream_consumer_num_pending"));
        }
        let after = leaders(&cluster).await;
        if before == after { Ok((page, rows, after)) } else { Err((before, after)) }
    })
    .await;
    assert_eq!(rows.len(), 2 * consumers(), "each consumer once");
    assert_eq!(rows.into_iter().collect::<BTreeMap<_, _>>(), page.of("nats_jetstream_consumer_num_pending"));

    // Stock: a row of each replica, of which one is the leader's.
    for (stream, replicas) in [("ONE", 1), ("THREE", 3)] {
        let with = [("stream_name", stream), ("consumer_name", "c0")];
        assert_eq!(page.matching("jetstream_consumer_num_pending", &with).len(), replicas, "{stream}");
        let leading = [with[0], with[1], ("is_consumer_leader", "true")];
        assert_eq!(page.value("jetstream_consumer_num_pending", &leading), (MESSAGES - 4) as f64);
        let rows = page.of("jetstream_consumer_num_pending");
        for labels in rows.keys().filter(|l| l["stream_name"] == stream) {
            assert_eq!(labels["is_consumer_leader"] == "true", labels["consumer_leader"] == labels["server_name"]);
            assert_eq!(labels["is_stream_leader"] == "true", labels["stream_leader"] == labels["server_name"]);
            assert!(labels["stream_raft_group"].starts_with("S-R"), "{labels:?}");
            assert_eq!((&*labels["cluster"], &labels["server_id"]), ("C", &labels["server_name"]));
        }
    }
    for (labels, value) in page.of("jetstream_server_total_streams") {
        assert_eq!(labels["meta_leader"], meta_leader);
        assert_eq!(labels["is_meta_leader"] == "true", labels["server_name"] == meta_leader);
        assert!(value >= 1.0);
    }

    // The leaders are those that the servers name.
    assert_eq!(leaders.len(), 2 * consumers());
    for labels in page.of("nats_jetstream_consumer_leader_info").keys() {
        assert_eq!(leaders[&[labels["stream"].clone(), labels["consumer"].clone()]], labels["leader"]);
        assert_eq!(labels["leader"], labels["server_name"]);
    }
    let peers = page.of("nats_jetstream_stream_replica_current");
    assert_eq!(peers.len(), 2, "the other two of THREE: {peers:?}");
    assert!(peers.iter().all(|(labels, current)| labels["stream"] == "THREE" && *current == 1.0));
    assert_eq!(page.of("nats_jetstream_stream_replica_lag").values().sum::<f64>(), 0.0);
    assert_eq!(page.of("nats_jetstream_server_max_storage_bytes").len(), 3);
    assert!(page.of("gnatsd_routez_num_routes").values().all(|n| *n >= 2.0));
    assert_eq!(page.of("gnatsd_varz_jetstream_meta_cluster_size").values().copied().collect::<Vec<_>>(), [3.0; 3]);
    let names: Vec<_> = page.of("gnatsd_varz_server_name").into_keys().collect();
    assert_eq!(names.len(), 3, "each server's own: {names:?}");
    assert!(names.iter().all(|labels| labels["server_id"] == labels["value"]));
}

#[tokio::test]
async fn a_change_of_leaders_moves_series_without_doubles_or_zeros() {
    let Some(()) = require("nats-server") else { return };
    let cluster = NatsCluster::start(NatsOptions::default()).await;
    let js = furnish(&cluster).await;
    let exporter = Exporter::start(&["--no-stock-jetstream", &targets(&cluster)]).await;
    let leader_of = |page: &Page, consumer: &str| {
        let rows = page.of("nats_jetstream_consumer_leader_info");
        rows.into_keys().find(|l| l["stream"] == "THREE" && l["consumer"] == consumer).map(|l| l["leader"].clone())
    };
    let mut before = leader_of(&settled(&exporter).await, "c0").unwrap();
    let client = async_nats::connect(cluster.url().split(',').collect::<Vec<_>>()).await.unwrap();
    for _ in 0..3 {
        for what in
            ["CONSUMER.LEADER.STEPDOWN.THREE.c0", "CONSUMER.LEADER.STEPDOWN.THREE.c1", "STREAM.LEADER.STEPDOWN.THREE"]
        {
            step_down(&client, what).await;
        }
        let mut scrapes = 0;
        let after = eventually(SETTLED, "the consumer has another leader", || {
            scrapes += 1;
            let exporter = &exporter;
            let before = before.clone();
            async move {
                let page = exporter.scrape().await;
                if let Err(what) = is_true(&page) {
                    panic!("between two leaders: {what}");
                }
                is_complete(&page)?;
                leader_of(&page, "c0").filter(|after| *after != before).ok_or(format!("still {before}"))
            }
        })
        .await;
        assert!(scrapes > 0);
        before = after;
    }
    drop(js);
}

#[tokio::test]
async fn a_server_that_dies_takes_only_its_own_series_along_and_comes_back() {
    let Some(()) = require("nats-server") else { return };
    let mut cluster = NatsCluster::start(NatsOptions::default()).await;
    furnish(&cluster).await;
    // Every replica of THREE must know its messages before one server goes.
    let exporter = Exporter::start(&["-varz", "-jsz=all", &targets(&cluster)]).await;
    settled(&exporter).await;
    let three = |page: &Page| page.matching("nats_jetstream_consumer_num_pending", &[("stream", "THREE")]).len();
    cluster.server(1).kill9();
    let page = eventually(SETTLED, "the other two lead all of THREE", || async {
        let page = exporter.scrape().await;
        is_true(&page)?;
        if three(&page) == consumers() { Ok(page) } else { Err(format!("{} consumers", three(&page))) }
    })
    .await;
    assert_eq!(page.value("nats_exporter_target_up", &[("server_id", "n2")]), 0.0);
    assert_eq!(page.value("nats_exporter_target_up", &[("server_id", "n1")]), 1.0);
    for (name, family) in page.families.iter().filter(|(name, _)| !name.starts_with("nats_exporter_")) {
        let of_dead =
            |l: &BTreeMap<String, String>| l.get("server_id").or(l.get("server_name")).is_some_and(|id| id == "n2");
        assert!(!family.series.keys().any(of_dead), "{name} has a series of the dead server");
    }
    cluster.server(1).restart().await;
    cluster.wait_for_leader().await;
    let page = settled(&exporter).await;
    assert_eq!(page.value("nats_exporter_target_up", &[("server_id", "n2")]), 1.0);
}

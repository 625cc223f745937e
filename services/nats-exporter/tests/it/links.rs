//! Leaf nodes and gateways: the links between servers, as the servers report them.

use crate::support::{Exporter, monitor};
use agentforge_harness::{EdgeSite, NatsOptions, NatsServer, eventually, free_port, require};
use std::time::Duration;

const CONNECTED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn leaf_nodes_are_told_with_their_traffic() {
    let Some(()) = require("nats-server") else { return };
    let site = EdgeSite::start("site-a").await;
    let hub = format!("hub,{}", site.hub.monitor_url());
    let leaf = format!("leaf,{}", site.leaf.monitor_url());
    let exporter = Exporter::start(&["-leafz", "-varz", "-jsz=all", &hub, &leaf]).await;
    let page = exporter.scrape().await;
    for (id, server) in [("hub", &site.hub), ("leaf", &site.leaf)] {
        let answer = monitor(server, "leafz").await;
        let count = answer["leafnodes"].as_f64().unwrap();
        assert!(count >= 1.0, "{answer}");
        assert_eq!(page.value("gnatsd_leafz_conn_nodes_total", &[("server_id", id)]), count);
        for link in answer["leafs"].as_array().unwrap() {
            let account = link["account"].as_str().unwrap();
            let port = link["port"].to_string();
            let with = [
                ("server_id", id),
                ("account", account),
                ("account_id", account),
                ("ip", link["ip"].as_str().unwrap()),
                ("port", &port),
                ("name", link["name"].as_str().unwrap()),
            ];
            assert_eq!(page.value("gnatsd_leafz_info", &with), 1.0);
            let subscriptions = page.value("gnatsd_leafz_conn_subscriptions_total", &with);
            assert_eq!(Some(subscriptions), link["subscriptions"].as_f64());
            let rtt = page.value("gnatsd_leafz_conn_rtt", &with);
            assert!((0.0..5.0).contains(&rtt), "seconds: {rtt}");
            assert!(page.value("gnatsd_leafz_conn_in_msgs", &with) >= 0.0);
        }
    }
    let domain = |id: &str| page.of("jetstream_server_max_storage").into_keys().find(|l| l["server_id"] == id).unwrap();
    assert_eq!((&*domain("hub")["domain"], &*domain("leaf")["domain"]), ("hub", "site-a"));
    assert_eq!(page.of("gnatsd_varz_jetstream_config_domain").len(), 2);
}

#[tokio::test]
async fn gateways_are_told_in_both_directions() {
    let Some(()) = require("nats-server") else { return };
    let ports = [free_port(), free_port()];
    let config = |n: usize, name: &str| {
        let gateways = format!(
            "{{name: A, url: \"nats://127.0.0.1:{}\"}}, {{name: B, url: \"nats://127.0.0.1:{}\"}}",
            ports[0], ports[1]
        );
        let own = format!("gateway {{ name: {name}, listen: \"127.0.0.1:{}\", gateways: [{gateways}] }}", ports[n]);
        NatsOptions { without_jetstream: true, ..Default::default() }.extra(&own)
    };
    let (a, _b) = (NatsServer::start(config(0, "A")).await, NatsServer::start(config(1, "B")).await);
    eventually(CONNECTED, "both directions are connected", || async {
        let answer = monitor(&a, "gatewayz").await;
        let inbound = answer["inbound_gateways"]["B"].as_array().is_some_and(|all| !all.is_empty());
        (inbound && answer["outbound_gateways"]["B"].is_object()).then_some(())
    })
    .await;
    let exporter = Exporter::start(&["-gatewayz", &format!("a,{}", a.monitor_url())]).await;
    let page = exporter.scrape().await;
    let answer = monitor(&a, "gatewayz").await;
    let outbound = &answer["outbound_gateways"]["B"];
    let inbound = &answer["inbound_gateways"]["B"][0];
    for (direction, link) in [("outbound", outbound), ("inbound", inbound)] {
        let cid = link["connection"]["cid"].to_string();
        let with = [("gateway_name", "A"), ("remote_gateway_name", "B"), ("server_id", "a"), ("cid", &*cid)];
        let value = |name: &str| page.value(&format!("gnatsd_gatewayz_{direction}_gateway_{name}"), &with);
        assert_eq!(value("configured") == 1.0, link["configured"] == true, "{direction}");
        let start: jiff::Timestamp = link["connection"]["start"].as_str().unwrap().parse().unwrap();
        assert!((value("conn_start_time_seconds") - start.as_duration().as_secs_f64()).abs() < 0.001);
        assert!((0.0..120.0).contains(&value("conn_uptime_seconds")));
        assert!((0.0..120.0).contains(&value("conn_idle_seconds")));
        assert!((0.0..5.0).contains(&value("conn_rtt")));
        for name in ["pending_bytes", "in_msgs", "out_msgs", "in_bytes", "out_bytes", "subscriptions"] {
            assert!(value(&format!("conn_{name}")) >= 0.0);
        }
        assert_eq!(Some(value("conn_subscriptions")), link["connection"]["subscriptions"].as_f64());
    }
    assert_eq!(page.names("gnatsd_gatewayz_").len(), 24);
}

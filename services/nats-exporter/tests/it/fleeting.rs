//! What comes and goes is on the page from the next scrape on, and off it as soon.

use crate::support::{Exporter, jetstream, make_consumer, make_stream, monitor, publish, take};
use agentforge_harness::{NatsOptions, NatsServer, require};

#[tokio::test]
async fn a_server_may_start_after_the_exporter_and_restart_with_another_id() {
    let Some(()) = require("nats-server") else { return };
    // Its ports are the same over restarts, so it can be down first.
    let mut server = NatsServer::start(NatsOptions::default().extra("server_name: late")).await;
    let first_id = monitor(&server, "varz").await["server_id"].as_str().unwrap().to_owned();
    server.stop_gracefully().await;
    let target = server.monitor_url();
    let exporter = Exporter::start(&["-varz", "-jsz=all", "-use_internal_server_id", &target]).await;
    let page = exporter.scrape().await;
    let up = |page: &crate::support::Page| page.value("nats_exporter_target_up", &[("server_id", &target)]);
    assert_eq!(up(&page), 0.0);
    assert!(page.names("gnatsd_").is_empty() && page.names("jetstream_").is_empty());

    server.restart().await;
    let page = exporter.scrape().await;
    assert_eq!(up(&page), 1.0);
    let second_id = monitor(&server, "varz").await["server_id"].as_str().unwrap().to_owned();
    assert_ne!(first_id, second_id);
    assert_eq!(page.matching("gnatsd_varz_connections", &[("server_id", &second_id)]).len(), 1);

    server.restart().await;
    let page = exporter.scrape().await;
    let third_id = monitor(&server, "varz").await["server_id"].as_str().unwrap().to_owned();
    assert_eq!(page.matching("gnatsd_varz_connections", &[("server_id", &third_id)]).len(), 1);
    assert_eq!(page.of("gnatsd_varz_connections").len(), 1, "nothing of the id before");
    assert!(!page.text.contains(&second_id));

    server.kill9();
    let page = exporter.scrape().await;
    assert_eq!(up(&page), 0.0);
    assert!(page.names("gnatsd_").is_empty() && page.names("nats_jetstream_").is_empty(), "nothing stale is served");
}

#[tokio::test]
async fn streams_and_consumers_are_gone_at_the_next_scrape_and_values_are_of_now() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let js = jetstream(&server.url()).await;
    let exporter = Exporter::start(&[&server.monitor_url()]).await;
    assert!(exporter.scrape().await.names("jetstream_stream_").is_empty());
    let stream = make_stream(&js, "S", 1).await;
    let consumer = make_consumer(&stream, "c").await;
    for round in 1..=3 {
        publish(&js, "S.a", 2).await;
        let page = exporter.scrape().await;
        assert_eq!(page.value("nats_jetstream_consumer_num_pending", &[("stream", "S"), ("consumer", "c")]), 2.0);
        take(&consumer, 2, 2).await;
        let page = exporter.scrape().await;
        assert_eq!(page.value("nats_jetstream_consumer_num_pending", &[]), 0.0);
        assert_eq!(page.value("nats_jetstream_consumer_ack_floor_stream_seq", &[]), f64::from(2 * round));
    }
    stream.delete_consumer("c").await.unwrap();
    let page = exporter.scrape().await;
    assert!(page.names("nats_jetstream_consumer_").is_empty() && page.names("jetstream_consumer_").is_empty());
    assert_eq!(page.of("jetstream_stream_total_messages").len(), 1);
    js.delete_stream("S").await.unwrap();
    let page = exporter.scrape().await;
    assert!(page.names("nats_jetstream_stream_").is_empty() && page.names("jetstream_stream_").is_empty());
    assert_eq!(page.value("jetstream_server_total_streams", &[]), 0.0);
}

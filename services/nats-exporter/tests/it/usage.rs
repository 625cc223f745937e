//! Flags, variables, filters and limits, and what the process says when they are wrong.

use crate::support::{Exporter, Page, jetstream, make_consumer, make_stream, publish};
use agentforge_harness::{NatsOptions, NatsServer, Proc, http_get, require};
use flate2::read::GzDecoder;
use std::{collections::BTreeSet, io::Read, time::Duration};

/// Exit code and what was said of a process that is expected to end by itself.
async fn ended(flags: &[&str], envs: &[(&str, &str)]) -> (i32, String) {
    let mut proc = Proc::builder(env!("CARGO_BIN_EXE_agentforge-nats-exporter"))
        .args(flags.iter().copied())
        .envs(envs.iter().map(|(k, v)| (*k, *v)))
        .start();
    let code = proc.wait(Duration::from_secs(30)).await;
    (code, proc.full_log())
}

#[tokio::test]
async fn what_is_wrong_is_said_with_a_hint_and_nothing_is_started() {
    for (flags, envs, part) in [
        (&["-varzz"][..], &[][..], "did you mean -varz?"),
        (&["-channelz"], &[], "is gone"),
        (&["-jsz=stream,customers"], &[], "\"customers\" is none of accounts, streams, consumers, all"),
        (&["http://u:hunter2@localhost:8222", "localhost"], &[], "\"localhost\" is neither a URL"),
        (&["-prefix", "nats_jetstream"], &[], "compact family"),
        (&["-prefix", "a-b"], &[], "cannot begin a metric's name"),
        (&["-http_user", "prom"], &[], "NATS_EXPORTER_HTTP_PASSWORD"),
        (&["-http_user", "prom", "-http_pass", "hunter2"], &[], "fewer than 16 characters"),
        (&["-tlscert", "/x"], &[], "NATS_EXPORTER_TLS_KEY"),
        (&["--stream-include=("], &[], "is not a regular expression"),
        (&["-port=seven"], &[], "METRICS_PORT"),
        (&["-path=/healthz"], &[], "cannot be the page's path"),
        (&[], &[("NATS_EXPORTER_ENDPOINTS", "varz,conz")], "did you mean connz?"),
        (&[], &[("NATS_EXPORTER_SERIES_MAX", "0")], "NATS_EXPORTER_SERIES_MAX"),
    ] {
        let (code, said) = ended(flags, envs).await;
        assert_eq!(code, 64, "{flags:?}: {said}");
        assert!(said.contains(part) && !said.contains("hunter2"), "{flags:?}: {said}");
    }
    let (code, said) = ended(&["-version"], &[]).await;
    assert!(code == 0 && said.starts_with("agentforge-nats-exporter "), "{said}");
    let (code, said) = ended(&["-help"], &[]).await;
    assert!(code == 0 && said.contains("-connz_detailed") && said.contains("NATS_EXPORTER_TARGETS"), "{said}");
    let flags = ["--check-config", "-http_user=u", "-http_pass=hunter2-of-16-chars", "http://u:hunter2@a", "-D"];
    let (code, said) = ended(&flags, &[]).await;
    assert!(code == 0 && said.contains("LOG_LEVEL=debug") && !said.contains("hunter2"), "{said}");
}

async fn furnished() -> NatsServer {
    let server = NatsServer::start(NatsOptions::default().extra("server_name: one")).await;
    let js = jetstream(&server.url()).await;
    for name in ["ORDERS", "KV_x", "ORDERS_old"] {
        let stream = make_stream(&js, name, 1).await;
        publish(&js, &format!("{name}.a"), 2).await;
        for n in 0..4 {
            make_consumer(&stream, &format!("c{n}")).await;
        }
    }
    server
}

fn values(page: &Page, family: &str, label: &str) -> BTreeSet<String> {
    page.of(family).into_keys().map(|mut labels| labels.remove(label).unwrap()).collect()
}

#[tokio::test]
async fn selections_of_endpoints_add_up_however_they_are_written() {
    let Some(()) = require("nats-server") else { return };
    let server = furnished().await;
    let url = server.monitor_url();
    let families = async |flags: &[&str], envs: &[(&str, &str)]| {
        let page = Exporter::start_with(&[flags, &[&url]].concat(), envs).await.scrape().await;
        let has = |start: &str| page.names("").iter().any(|name| name.starts_with(start));
        let starts = [
            "gnatsd_varz_",
            "gnatsd_connz_",
            "gnatsd_subsz_",
            "gnatsd_healthz_",
            "jetstream_account_",
            "jetstream_stream_",
            "jetstream_consumer_",
            "nats_jetstream_consumer_",
        ];
        starts.map(has).map(u8::from)
    };
    assert_eq!(families(&[], &[]).await, [1, 0, 0, 0, 1, 1, 1, 1], "the default");
    assert_eq!(families(&["-varz"], &[]).await, [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(families(&["-connz", "-subz"], &[]).await, [0, 1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(families(&["-subsz", "-healthz=true"], &[]).await, [0, 0, 1, 1, 0, 0, 0, 0]);
    assert_eq!(families(&["-jsz=accounts"], &[]).await, [1, 0, 0, 0, 1, 0, 0, 0], "varz comes with -jsz alone");
    assert_eq!(families(&["-connz", "-jsz", "streams"], &[]).await, [0, 1, 0, 0, 1, 1, 0, 0]);
    for jsz in [&["-jsz=streams,consumers,accounts"][..], &["-jsz=consumers", "-jsz=accounts"], &["-jsz=ALL"]] {
        assert_eq!(families(jsz, &[]).await, [1, 0, 0, 0, 1, 1, 1, 1], "{jsz:?}");
    }
    assert_eq!(families(&["--no-stock-jetstream"], &[]).await, [1, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(families(&["--no-compact"], &[]).await, [1, 0, 0, 0, 1, 1, 1, 0]);
    let envs = [("NATS_EXPORTER_ENDPOINTS", "connz,healthz"), ("NATS_EXPORTER_JSZ", "streams")];
    assert_eq!(families(&[], &envs).await, [0, 1, 0, 1, 1, 1, 0, 0]);
    assert_eq!(families(&["-varz"], &envs).await, [1, 0, 0, 0, 1, 1, 0, 0], "flags come before variables");
}

#[tokio::test]
async fn a_prefix_renames_the_stock_family_alone() {
    let Some(()) = require("nats-server") else { return };
    let server = furnished().await;
    let page =
        Exporter::start(&["-prefix=nats", "-subz", "-varz", "-jsz=all", &server.monitor_url()]).await.scrape().await;
    for name in [
        "nats_varz_connections",
        "nats_subsz_num_subscriptions",
        "nats_server_total_consumers",
        "nats_consumer_num_pending",
    ] {
        assert!(page.families.contains_key(name), "{name}");
    }
    assert!(page.names("gnatsd_").is_empty() && page.names("jetstream_").is_empty());
    assert_eq!(page.of("nats_jetstream_consumer_num_pending").len(), 12);
    assert_eq!(page.value("nats_exporter_target_up", &[]), 1.0);
}

#[tokio::test]
async fn dashboards_for_the_known_exporter_find_their_names() {
    let Some(()) = require("nats-server") else { return };
    let server = furnished().await;
    for (prefix, flags) in [("", &[][..]), ("nats", &["-prefix=nats"][..])] {
        let url = server.monitor_url();
        let flags = [flags, &["-varz", "-jsz=all", &url]].concat();
        let page = Exporter::start(&flags).await.scrape().await;
        let varz = "connections cpu mem in_bytes in_msgs out_bytes out_msgs slow_consumers subscriptions jetstream_config_max_memory jetstream_config_max_storage jetstream_stats_memory jetstream_stats_storage";
        let jetstream = "consumer_delivered_consumer_seq consumer_num_ack_pending consumer_num_pending server_total_consumers stream_total_bytes stream_total_messages stream_last_seq";
        let core = if prefix.is_empty() { "gnatsd" } else { prefix };
        let js = if prefix.is_empty() { "jetstream" } else { prefix };
        let names = varz
            .split(' ')
            .map(|n| format!("{core}_varz_{n}"))
            .chain(jetstream.split(' ').map(|n| format!("{js}_{n}")));
        for name in names {
            assert!(!page.of(&name).is_empty(), "{name}");
        }
        for name in
            ["process_cpu_seconds_total", "process_resident_memory_bytes", "promhttp_metric_handler_requests_in_flight"]
        {
            assert!(!page.of(name).is_empty(), "{name}");
        }
    }
}

#[tokio::test]
async fn filters_choose_streams_and_consumers_in_both_families() {
    let Some(()) = require("nats-server") else { return };
    let server = furnished().await;
    let url = server.monitor_url();
    let flags = ["--stream-exclude=KV_.*|OBJ_.*", "--stream-include", ".*", "--consumer-include=c[01]", &url];
    let page = Exporter::start(&flags).await.scrape().await;
    let set = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    for (family, stream, consumer) in [
        ("jetstream_consumer_num_pending", "stream_name", "consumer_name"),
        ("nats_jetstream_consumer_num_pending", "stream", "consumer"),
    ] {
        assert_eq!(values(&page, family, stream), set(&["ORDERS", "ORDERS_old"]), "{family}");
        assert_eq!(values(&page, family, consumer), set(&["c0", "c1"]), "{family}");
    }
    assert_eq!(values(&page, "nats_jetstream_stream_messages", "stream"), set(&["ORDERS", "ORDERS_old"]));
    let page = Exporter::start(&["--account-exclude", r"\$G", &server.monitor_url()]).await.scrape().await;
    assert!(page.names("jetstream_stream_").is_empty() && page.names("nats_jetstream_stream_").is_empty());
}

#[tokio::test]
async fn ephemeral_consumers_are_in_the_compact_family_only_when_asked_for() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default()).await;
    let stream = make_stream(&jetstream(&server.url()).await, "S", 1).await;
    let fleeting = async_nats::jetstream::consumer::pull::Config {
        inactive_threshold: Duration::from_secs(600),
        ..Default::default()
    };
    stream.create_consumer(fleeting).await.unwrap();
    let count = async |flags: &[&str]| {
        let page = Exporter::start(&[flags, &[&server.monitor_url()]].concat()).await.scrape().await;
        (page.of("nats_jetstream_consumer_num_pending").len(), page.of("jetstream_consumer_num_pending").len())
    };
    assert_eq!(count(&[]).await, (0, 1));
    assert_eq!(count(&["--ephemeral"]).await, (1, 1));
}

#[tokio::test]
async fn beyond_the_limit_series_are_left_out_the_same_ones_each_time_and_counted() {
    let Some(()) = require("nats-server") else { return };
    let server = furnished().await;
    let exporter = Exporter::start(&["-varz", "-jsz=all", "--series-max=300", &server.monitor_url()]).await;
    let servers = |page: &Page| {
        let of_servers = |name: &&String| name.starts_with("gnatsd_") || name.contains("jetstream_");
        let all = page
            .families
            .keys()
            .filter(of_servers)
            .flat_map(|name| page.of(name).into_keys().map(move |l| (name.clone(), l)));
        all.collect::<BTreeSet<_>>()
    };
    let (first, second) = (exporter.scrape().await, exporter.scrape().await);
    assert!(servers(&first).len() <= 300 && servers(&first).len() > 250, "{}", servers(&first).len());
    // varz counts one more path from the second time on.
    let jetstream =
        |page| servers(page).into_iter().filter(|(name, _)| name.contains("jetstream_")).collect::<BTreeSet<_>>();
    assert!(jetstream(&second).is_subset(&jetstream(&first)), "other series were left out");
    assert_eq!(first.value("nats_exporter_target_up", &[]), 1.0);
    let dropped = |page: &Page| page.value("nats_exporter_series_dropped_total", &[("endpoint", "jsz")]);
    assert!(dropped(&first) > 100.0 && dropped(&second) > dropped(&first), "counted at each scrape");
    let whole = Exporter::start(&["-varz", "-jsz=all", &server.monitor_url()]).await.scrape().await;
    assert_eq!(dropped(&whole), 0.0);
    let missing = jetstream(&whole).len() - jetstream(&first).len();
    assert_eq!(missing as f64, dropped(&first), "what is missing is counted");
}

#[tokio::test]
async fn pages_are_compressed_for_who_accepts_it() {
    let Some(()) = require("nats-server") else { return };
    let server = furnished().await;
    let exporter = Exporter::start(&["-jsz=all", "-path", "nats", &server.monitor_url()]).await;
    let url = exporter.url.replace("/metrics", "/nats");
    let (status, packed) = http_get(&url, &["Accept-Encoding: gzip"]).await.unwrap();
    assert_eq!(status, 200);
    let mut text = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    let page = Page::parse(text);
    assert_eq!(page.of("nats_jetstream_consumer_num_pending").len(), 12);
    assert!(!page.of("process_open_fds").is_empty(), "to its end");
    assert!(packed.len() * 4 < page.text.len(), "{} of {}", packed.len(), page.text.len());
    let (_, plain) = http_get(&url, &[]).await.unwrap();
    assert!(plain.starts_with(b"# "));
    assert_eq!(http_get(&exporter.url, &[]).await.unwrap().0, 404, "the page is where -path says");
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(http_get(&url.replace("/nats", probe), &[]).await.unwrap().0, 200, "{probe}");
    }
    let never = Exporter::start(&["--no-gzip", &server.monitor_url()]).await;
    assert!(http_get(&never.url, &["Accept-Encoding: gzip"]).await.unwrap().1.starts_with(b"# "));
}

#[tokio::test]
async fn labels_of_servers_and_metadata_are_those_chosen() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default().extra("server_name: named")).await;
    let js = jetstream(&server.url()).await;
    let config = async_nats::jetstream::stream::Config {
        name: "S".into(),
        metadata: [("team".to_owned(), "blue".to_owned()), ("cost-centre".to_owned(), "7".to_owned())].into(),
        ..Default::default()
    };
    js.create_stream(config).await.unwrap();
    let flags = [
        "-use_internal_server_name",
        "-varz",
        "-jsz=all",
        "-jsz_stream_meta_keys=team,cost-centre,none",
        "--typed-counters",
    ];
    let page = Exporter::start(&[&flags[..], &[&server.monitor_url()]].concat()).await.scrape().await;
    let with = [
        ("server_id", "named"),
        ("stream_meta_team", "blue"),
        ("stream_meta_cost_centre", "7"),
        ("stream_meta_none", ""),
    ];
    assert_eq!(page.value("jetstream_stream_total_messages", &with), 0.0);
    assert_eq!(page.matching("gnatsd_varz_connections", &[("server_id", "named")]).len(), 1);
    assert_eq!(page.families["nats_varz_in_msgs_total"].kind, "counter");
    assert_eq!(page.of("nats_varz_in_msgs_total"), page.of("gnatsd_varz_in_msgs"));
    assert_eq!(page.value("nats_exporter_target_up", &[("server_id", &server.monitor_url())]), 1.0);

    // Two targets that are one server must not double its series.
    let twice = format!("a,{0},b,{0}", server.monitor_url());
    let page = Exporter::start(&["-use_internal_server_id", "-varz", &twice]).await.scrape().await;
    assert_eq!(page.of("gnatsd_varz_connections").len(), 1);
    assert_eq!(page.value("nats_exporter_target_up", &[("server_id", "b")]), 0.0);
}

#[tokio::test]
async fn the_known_exporters_command_line_is_reached_from_elsewhere() {
    let address = async |flags: &[&str], envs: &[(&str, &str)]| {
        let mut proc = Proc::builder(env!("CARGO_BIN_EXE_agentforge-nats-exporter"))
            .args(flags.iter().copied())
            .envs(envs.iter().map(|(k, v)| (*k, *v)))
            .start();
        let ready = proc.ready(Duration::from_secs(30)).await;
        let url = ready["nats-exporter"]["metrics"].as_str().unwrap().to_owned();
        let port: u16 = url.trim_end_matches("/metrics").rsplit_once(':').unwrap().1.parse().unwrap();
        // Another address of this machine than the one that only loopback has.
        tokio::net::TcpStream::connect(("127.0.0.2", port)).await.is_ok()
    };
    let dev = ("ENV", "dev");
    assert!(address(&["-port", "0", "-varz", "-jsz=all", "http://localhost:8222"], &[dev]).await);
    assert!(!address(&["-port", "0", "-varz", "-addr", "127.0.0.1"], &[dev]).await);
    assert!(!address(&["-port", "0", "-varz"], &[dev, ("BIND_ADDR", "127.0.0.1")]).await);
    assert!(!address(&["-port", "0", "http://localhost:8222"], &[dev]).await);
}

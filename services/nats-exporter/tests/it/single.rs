//! One server: everything on the page is what the server's endpoints say, and all of that is there.

use crate::support::{
    Exporter, Labels, Page, jetstream_as, labels, make_consumer, make_stream, monitor, publish, take,
};
use agentforge_harness::{NatsOptions, NatsServer, promtool, require};
use async_nats::jetstream::{consumer::pull, stream};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Accounts, a system account, JetStream in two of them.
const ACCOUNTS: &str = r#"
server_name: solo
accounts {
  A: { jetstream: enabled, users: [{user: a, password: secret-a}] }
  B: { jetstream: enabled, users: [{user: b, password: secret-b}] }
  $SYS: { users: [{user: sys, password: secret-sys}] }
}
"#;

/// Streams and consumers of every kind, with messages in every state.
async fn furnish(server: &NatsServer) {
    let js = jetstream_as("a", server).await;
    let orders = stream::Config {
        name: "ORDERS".into(),
        subjects: vec!["ORDERS.>".into()],
        max_messages: 1000,
        max_bytes: 1 << 20,
        metadata: [("team".to_owned(), "blue".to_owned())].into(),
        ..Default::default()
    };
    let orders = js.create_stream(orders).await.unwrap();
    publish(&js, "ORDERS.a", 6).await;
    publish(&js, "ORDERS.b", 4).await;
    take(&make_consumer(&orders, "half").await, 5, 3).await;
    make_consumer(&orders, "none").await;
    let described = pull::Config {
        durable_name: Some("filtered".into()),
        description: Some("say \"hi\"".into()),
        filter_subject: "ORDERS.b".into(),
        ..Default::default()
    };
    orders.create_consumer(described).await.unwrap();
    let fleeting = pull::Config { inactive_threshold: std::time::Duration::from_secs(600), ..Default::default() };
    orders.create_consumer(fleeting).await.unwrap();
    let source = |name: &str| stream::Source { name: name.to_owned(), ..Default::default() };
    let mirror = stream::Config { name: "MIRROR".into(), mirror: Some(source("ORDERS")), ..Default::default() };
    js.create_stream(mirror).await.unwrap();
    let fed = stream::Config { name: "FED".into(), sources: Some(vec![source("ORDERS")]), ..Default::default() };
    js.create_stream(fed).await.unwrap();
    let other = jetstream_as("b", server).await;
    make_consumer(&make_stream(&other, "ORDERS", 1).await, "half").await;
    publish(&other, "ORDERS.z", 2).await;
    // A mirror is filled a moment later.
    for name in ["MIRROR", "FED"] {
        agentforge_harness::eventually(std::time::Duration::from_secs(20), "the copy is complete", || async {
            js.get_stream(name).await.ok()?.cached_info().state.messages.eq(&10).then_some(())
        })
        .await;
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[tokio::test]
async fn jetstream_series_are_what_jsz_says_row_by_row() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default().extra(ACCOUNTS)).await;
    furnish(&server).await;
    let exporter = Exporter::start(&["-jsz=streams,consumers,accounts", &format!("n1,{}", server.monitor_url())]).await;
    let page = exporter.scrape().await;
    let jsz = monitor(&server, "jsz?consumers=true&config=true&raft=true").await;

    // Expected series, written down from the answer without the exporter's code.
    let mut expected: BTreeMap<(&str, Labels), f64> = BTreeMap::new();
    let mut add = |name, labels: &[&[(&str, &str)]], value: &Value| {
        if let Some(value) = value.as_f64() {
            expected.insert((name, crate::support::labels(&labels.concat())), value);
        }
    };
    let base = [
        ("server_id", "n1"),
        ("server_name", "solo"),
        ("cluster", ""),
        ("domain", ""),
        ("meta_leader", ""),
        ("is_meta_leader", "true"),
    ];
    for (name, key) in [
        ("jetstream_server_total_streams", "streams"),
        ("jetstream_server_total_consumers", "consumers"),
        ("jetstream_server_total_messages", "messages"),
        ("jetstream_server_total_message_bytes", "bytes"),
    ] {
        add(name, &[&base], &jsz[key]);
    }
    add("jetstream_server_max_memory", &[&base], &jsz["config"]["max_memory"]);
    add("jetstream_server_max_storage", &[&base], &jsz["config"]["max_storage"]);
    add("jetstream_server_jetstream_disabled", &[&base], &0.into());
    for account in jsz["account_details"].as_array().unwrap() {
        let a = text(&account["name"]);
        let of_account = [("account", a), ("account_name", a), ("account_id", text(&account["id"]))];
        for (name, key) in [
            ("jetstream_account_max_memory", "reserved_memory"),
            ("jetstream_account_max_storage", "reserved_storage"),
            ("jetstream_account_memory_used", "memory"),
            ("jetstream_account_storage_used", "storage"),
        ] {
            add(name, &[&base, &of_account], &account[key]);
        }
        for s in account["stream_detail"].as_array().unwrap_or(&vec![]) {
            let stream = text(&s["name"]);
            let leader = text(&s["cluster"]["leader"]);
            let of_stream = [
                ("stream_name", stream),
                ("stream_leader", leader),
                ("is_stream_leader", "true"),
                ("stream_raft_group", ""),
            ];
            let minimal = [("account", a), ("stream", stream)];
            for (stock, compact, value) in [
                ("total_messages", "messages", &s["state"]["messages"]),
                ("total_bytes", "bytes", &s["state"]["bytes"]),
                ("first_seq", "first_seq", &s["state"]["first_seq"]),
                ("last_seq", "last_seq", &s["state"]["last_seq"]),
                ("consumer_count", "consumers", &s["state"]["consumer_count"]),
                ("subject_count", "subjects", &s["state"]["num_subjects"]),
                ("limit_bytes", "limit_bytes", &s["config"]["max_bytes"]),
                ("limit_messages", "limit_messages", &s["config"]["max_msgs"]),
            ] {
                // Zero is left out of the answer where a stream has no subjects.
                let value = if value.is_null() { &Value::from(0) } else { value };
                add(
                    Box::leak(format!("jetstream_stream_{stock}").into_boxed_str()),
                    &[&base, &of_account, &of_stream],
                    value,
                );
                add(Box::leak(format!("nats_jetstream_stream_{compact}").into_boxed_str()), &[&minimal], value);
            }
            for (kind, all) in [
                ("source", s["sources"].as_array().cloned().unwrap_or_default()),
                ("mirror", s["mirror"].as_object().map(|_| s["mirror"].clone()).into_iter().collect()),
            ] {
                for origin in all {
                    let names: [String; 3] = ["name", "api", "deliver"].map(|part| format!("{kind}_{part}"));
                    let own = [(&*names[0], text(&origin["name"])), (&*names[1], ""), (&*names[2], "")];
                    let name = format!("jetstream_stream_{kind}_lag").leak();
                    add(name, &[&base, &of_account, &of_stream, &own], &origin["lag"]);
                    add(
                        format!("nats_{name}").leak(),
                        &[&minimal, &[("source", text(&origin["name"]))]],
                        &origin["lag"],
                    );
                }
            }
            for c in s["consumer_detail"].as_array().unwrap_or(&vec![]) {
                let consumer = text(&c["name"]);
                let of_consumer = [
                    ("consumer_name", consumer),
                    ("consumer_leader", ""),
                    ("is_consumer_leader", "true"),
                    ("consumer_desc", text(&c["config"]["description"])),
                ];
                let is_durable = c["config"]["durable_name"].is_string();
                for (name, value) in [
                    ("delivered_consumer_seq", &c["delivered"]["consumer_seq"]),
                    ("delivered_stream_seq", &c["delivered"]["stream_seq"]),
                    ("ack_floor_consumer_seq", &c["ack_floor"]["consumer_seq"]),
                    ("ack_floor_stream_seq", &c["ack_floor"]["stream_seq"]),
                    ("num_ack_pending", &c["num_ack_pending"]),
                    ("num_redelivered", &c["num_redelivered"]),
                    ("num_waiting", &c["num_waiting"]),
                    ("num_pending", &c["num_pending"]),
                ] {
                    let stock = format!("jetstream_consumer_{name}").leak();
                    add(stock, &[&base, &of_account, &of_stream, &of_consumer], value);
                    if is_durable {
                        add(format!("nats_{stock}").leak(), &[&minimal, &[("consumer", consumer)]], value);
                    }
                }
                if is_durable {
                    for (name, value) in [
                        ("nats_jetstream_consumer_max_ack_pending", &c["config"]["max_ack_pending"]),
                        ("nats_jetstream_consumer_max_deliver", &c["config"]["max_deliver"]),
                        ("nats_jetstream_consumer_max_waiting", &c["config"]["max_waiting"]),
                        (
                            "nats_jetstream_consumer_ack_wait_seconds",
                            &Value::from(c["config"]["ack_wait"].as_f64().unwrap() / 1e9),
                        ),
                        ("nats_jetstream_consumer_paused", &0.into()),
                    ] {
                        add(name, &[&minimal, &[("consumer", consumer)]], value);
                    }
                    let leader = [("consumer", consumer), ("leader", "solo"), ("server_name", "solo")];
                    add("nats_jetstream_consumer_leader_info", &[&minimal, &leader], &1.into());
                }
            }
        }
    }
    let server_rows = [
        ("memory_bytes", &jsz["memory"]),
        ("storage_bytes", &jsz["storage"]),
        ("reserved_memory_bytes", &jsz["reserved_memory"]),
        ("reserved_storage_bytes", &jsz["reserved_storage"]),
        ("max_memory_bytes", &jsz["config"]["max_memory"]),
        ("max_storage_bytes", &jsz["config"]["max_storage"]),
    ];
    for (name, value) in server_rows {
        add(format!("nats_jetstream_server_{name}").leak(), &[&[("server_name", "solo")]], value);
    }
    add("nats_jetstream_api_requests_total", &[&[("server_name", "solo")]], &jsz["api"]["total"]);
    add("nats_jetstream_api_errors_total", &[&[("server_name", "solo")]], &jsz["api"]["errors"]);

    // These depend on the moment; the tests of the reader have their values.
    let moving = |name: &str| {
        ["_last_delivery_seconds", "_last_ack_seconds", "_active_duration_ns", "_oldest_pending_timestamp_seconds"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let mut found = BTreeMap::new();
    for (name, family) in &page.families {
        if (name.starts_with("jetstream_") || name.starts_with("nats_jetstream_")) && !moving(name) {
            found.extend(family.series.iter().map(|(labels, value)| ((name.as_str(), labels.clone()), *value)));
        }
    }
    let missing: Vec<_> = expected.iter().filter(|(key, _)| !found.contains_key(*key)).collect();
    let invented: Vec<_> = found.iter().filter(|(key, _)| !expected.contains_key(*key)).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing {missing:#?}\ninvented {invented:#?}");
    let wrong: Vec<_> = expected.iter().filter(|(key, value)| found[*key] != **value).collect();
    assert!(wrong.is_empty(), "expected {wrong:#?}");

    let half = [("account", "A"), ("stream", "ORDERS"), ("consumer", "half")];
    assert_eq!(page.value("nats_jetstream_consumer_num_pending", &half), 5.0);
    assert_eq!(page.value("nats_jetstream_consumer_num_ack_pending", &half), 2.0);
    let age = page.value("nats_jetstream_consumer_last_ack_seconds", &half);
    assert!((0.0..60.0).contains(&age), "{age}");
    let none = [("account", "A"), ("stream", "ORDERS"), ("consumer", "none")];
    assert!(page.matching("nats_jetstream_consumer_last_ack_seconds", &none).is_empty(), "absent if never");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let oldest = page.value("nats_jetstream_consumer_oldest_pending_timestamp_seconds", &none);
    assert!((now - 120.0..now).contains(&oldest), "{oldest} at {now}");
    assert!(page.matching("nats_jetstream_consumer_oldest_pending_timestamp_seconds", &half).is_empty(), "not known");
    for (name, family) in page.families.iter().filter(|(name, _)| name.contains("jetstream_")) {
        let counter = name.ends_with("_total") && name.starts_with("nats_jetstream_api");
        assert_eq!(family.kind, if counter { "counter" } else { "gauge" }, "{name}");
        assert!(!family.help.is_empty(), "{name}");
    }
}

/// The value that a flattened name stands for in an answer; keys may have `_` themselves.
fn resolve<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    if name.is_empty() {
        return Some(answer);
    }
    answer.as_object()?.iter().find_map(|(key, value)| {
        let key = key.trim_matches('/').replace('/', "_");
        let rest = name.strip_prefix(key.as_str())?;
        let rest = if key.is_empty() { rest } else { rest.strip_prefix('_').or(rest.is_empty().then_some(""))? };
        resolve(value, rest).filter(|found| !found.is_object())
    })
}

/// Numbers of an answer whose path nobody leaves out.
fn numbers(answer: &Value, path: &str, out: &mut BTreeSet<String>) {
    for (key, value) in answer.as_object().into_iter().flatten() {
        let key = key.trim_matches('/').replace('/', "_");
        let path = [path, &key].iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join("_");
        if value.is_number() {
            out.insert(path);
        } else if path != "leaf" {
            numbers(value, &path, out);
        }
    }
}

fn of_endpoint(page: &Page, endpoint: &str) -> BTreeMap<String, f64> {
    let start = format!("gnatsd_{endpoint}_");
    let short = |name: &String| name[start.len()..].to_owned();
    page.names(&start)
        .iter()
        .filter(|name| page.of(name).keys().all(|labels| labels.keys().eq(["server_id"])))
        .map(|name| (short(name), page.value(name, &[("server_id", "n1")])))
        .collect()
}

#[tokio::test]
async fn varz_routez_and_subsz_are_every_number_of_the_answer() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default().extra(ACCOUNTS)).await;
    furnish(&server).await;
    let exporter = Exporter::start(&["-varz", "-routez", "-subz", &format!("n1,{}", server.monitor_url())]).await;
    exporter.scrape().await;
    let page = exporter.scrape().await;
    for endpoint in ["varz", "routez", "subsz"] {
        let answer = monitor(&server, endpoint).await;
        let found = of_endpoint(&page, endpoint);
        let mut expected = BTreeSet::new();
        numbers(&answer, "", &mut expected);
        if endpoint == "varz" {
            expected.extend(["start".to_owned(), "config_load_time".to_owned()]);
            // Counted by the path "/", which the exporter never asks.
            assert!(found.contains_key("http_req_stats_varz"), "{found:?}");
        }
        expected.retain(|name| name != "http_req_stats");
        assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), expected, "{endpoint}");
        // What the requests themselves change, and what the machine does meanwhile.
        let moving =
            ["cpu", "mem", "http_req_stats", "num_cache", "num_matches", "cache_hit_rate", "avg_fanout", "in_", "out_"];
        for (name, value) in found.iter().filter(|(name, _)| !moving.iter().any(|m| name.starts_with(m))) {
            let wanted = resolve(&answer, name).unwrap_or_else(|| panic!("{name} is not in {answer}"));
            match wanted.as_str() {
                Some(moment) => {
                    let moment: jiff::Timestamp = moment.parse().unwrap();
                    assert_eq!(*value, moment.as_millisecond() as f64, "{name}");
                }
                None => assert_eq!(Some(*value), wanted.as_f64(), "{endpoint} {name}"),
            }
        }
    }
    let info = |name: &str, value: &str| page.value(name, &[("server_id", "n1"), ("value", value)]);
    assert_eq!(info("gnatsd_varz_server_name", "solo"), 1.0);
    assert_eq!(info("gnatsd_routez_server_name", "solo"), 1.0);
    let version = monitor(&server, "varz").await["version"].as_str().unwrap().to_owned();
    assert_eq!(info("gnatsd_varz_version", &version), 1.0);
    assert!(page.families.iter().filter(|(n, _)| n.starts_with("gnatsd_")).all(|(_, f)| f.kind == "gauge"));
    for name in page.names("gnatsd_") {
        assert_eq!(page.families[&name].help, name.splitn(3, '_').nth(2).unwrap(), "the help is the short name");
    }
    assert!(!page.text.contains("secret"), "a credential is on the page");
}

#[tokio::test]
async fn accounts_connections_and_health_are_told_by_their_endpoints() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default().extra(ACCOUNTS)).await;
    let connect = |user: &'static str| {
        let options = async_nats::ConnectOptions::new().name(format!("name-of-{user}"));
        options.user_and_password(user.to_owned(), format!("secret-{user}")).connect(server.url())
    };
    let (a, _b, _c) = (connect("a").await.unwrap(), connect("b").await.unwrap(), connect("b").await.unwrap());
    a.publish("nowhere", "12345".into()).await.unwrap();
    a.flush().await.unwrap();
    let target = format!("n1,{}", server.monitor_url());
    let flags = [
        "-connz_detailed",
        "-accstatz",
        "-accountz",
        "-healthz",
        "-healthz_js_enabled_only",
        "-healthz_js_server_only",
    ];
    let exporter = Exporter::start(&[&flags[..], &[&target]].concat()).await;
    let page = exporter.scrape().await;

    let summary = |name: &str| {
        let all = page.of(&format!("gnatsd_connz_{name}"));
        all[&labels(&[("server_id", "n1")])]
    };
    assert_eq!((summary("num_connections"), summary("total"), summary("in_bytes")), (3.0, 3.0, 5.0));
    assert_eq!((summary("limit"), summary("offset")), (1024.0, 0.0));
    assert_eq!(page.families["gnatsd_connz_in_msgs"].kind, "counter");
    assert_eq!(page.families["gnatsd_connz_start"].kind, "untyped");
    let of_a = [("account", "A"), ("lang", "rust"), ("kind", "Client"), ("name", ""), ("ip", "127.0.0.1")];
    assert_eq!(page.value("gnatsd_connz_in_bytes", &of_a), 5.0);
    let uptime = page.value("gnatsd_connz_uptime", &of_a);
    assert!((0.0..120_000.0).contains(&uptime), "{uptime}");
    let expected: BTreeSet<_> =
        "server_id cid kind type ip port name name_tag account account_id lang version tls_version tls_cipher_suite"
            .split(' ')
            .map(str::to_owned)
            .collect();
    let detail = page.of("gnatsd_connz_start");
    assert_eq!(detail.len(), 3);
    assert!(detail.keys().all(|labels| labels.keys().cloned().collect::<BTreeSet<_>>() == expected));
    assert!(!page.text.contains("name-of-") && !page.text.contains("secret"), "names and credentials stay inside");

    let statz = monitor(&server, "accstatz?unused=1").await;
    let accounts = statz["account_statz"].as_array().unwrap();
    assert!(accounts.len() >= 3);
    for account in accounts {
        let id = account["acc"].as_str().unwrap();
        let with = [("account", id), ("account_id", id), ("account_name", account["name"].as_str().unwrap())];
        for (name, value) in [
            ("current_connections", &account["conns"]),
            ("total_connections", &account["total_conns"]),
            ("subscriptions", &account["num_subscriptions"]),
            ("leaf_nodes", &account["leafnodes"]),
            ("sent_messages", &account["sent"]["msgs"]),
            ("received_bytes", &account["received"]["bytes"]),
            ("slow_consumers", &account["slow_consumers"]),
        ] {
            assert_eq!(Some(page.value(&format!("gnatsd_accstatz_{name}"), &with)), value.as_f64(), "{id} {name}");
        }
        let details = [("account_id", id), ("server_id", "n1")];
        let is_system = f64::from(u8::from(id == "$SYS"));
        assert_eq!(page.value("gnatsd_accountz_is_system", &details), is_system, "{id}");
        assert_eq!(Some(page.value("gnatsd_accountz_client_connections", &details)), account["conns"].as_f64());
        assert_eq!(page.value("gnatsd_accountz_limit_conn", &details), 0.0, "no limits without a JWT");
    }
    for endpoint in ["healthz", "healthz_js_enabled_only", "healthz_js_server_only"] {
        assert_eq!(page.value(&format!("gnatsd_{endpoint}_status"), &[("server_id", "n1")]), 0.0);
        assert_eq!(page.value(&format!("gnatsd_{endpoint}_status_value"), &[("value", "ok")]), 1.0);
    }
    let named = Exporter::start(&["-connz_detailed", "--connection-names", &target]).await.scrape().await;
    assert_eq!(named.matching("gnatsd_connz_start", &[("name", "name-of-a")]).len(), 1);
}

#[tokio::test]
async fn sums_of_connections_go_past_the_servers_page() {
    let Some(()) = require("nats-server") else { return };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const CONNECTIONS: usize = 1_100;
    let server = NatsServer::start(NatsOptions::default().extra("max_connections: 5000")).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut c = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        c.write_all(b"CONNECT {\"verbose\":false}\r\nPUB x 2\r\nhi\r\nPING\r\n").await.unwrap();
        open.push(c);
    }
    for c in &mut open {
        let mut seen = Vec::new();
        while !seen.ends_with(b"PONG\r\n") {
            assert!(c.read_buf(&mut seen).await.unwrap() > 0, "the server closed a connection");
        }
    }
    let exporter = Exporter::start(&["-connz", &server.monitor_url()]).await;
    let page = exporter.scrape().await;
    assert_eq!(page.value("gnatsd_connz_num_connections", &[]), CONNECTIONS as f64);
    assert_eq!(page.value("gnatsd_connz_in_msgs", &[]), CONNECTIONS as f64);
    assert_eq!(page.value("gnatsd_connz_in_bytes", &[]), 2.0 * CONNECTIONS as f64);
    assert!(page.of("gnatsd_connz_start").is_empty(), "single connections only when asked for");
}

#[tokio::test]
async fn a_server_without_jetstream_is_told_as_disabled() {
    let Some(()) = require("nats-server") else { return };
    let options = NatsOptions { without_jetstream: true, ..Default::default() };
    let server = NatsServer::start(options.extra("server_name: plain")).await;
    let page = Exporter::start(&[&server.monitor_url()]).await.scrape().await;
    assert_eq!(page.value("jetstream_server_jetstream_disabled", &[("server_name", "plain")]), 1.0);
    assert_eq!(page.value("nats_exporter_target_up", &[]), 1.0);
    assert!(page.names("nats_jetstream_").is_empty());
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_compact_family() {
    let (Some(()), Some(())) = (require("nats-server"), require("prometheus")) else { return };
    let server = NatsServer::start(NatsOptions::default().extra(ACCOUNTS)).await;
    furnish(&server).await;
    let page = Exporter::start(&["-varz", "-jsz=all", &server.monitor_url()]).await.scrape().await;
    let (is_content, said) = promtool(&["check", "metrics"], page.part("nats_").as_bytes());
    assert!(is_content && said.is_empty(), "{said}");
    assert!(page.names("nats_jetstream_").len() > 25, "{:?}", page.names("nats_jetstream_"));
    // It reads all of the page; what it has against the stock names is their age.
    let (_, said) = promtool(&["check", "metrics"], page.text.as_bytes());
    assert!(!said.contains("error while linting"), "{said}");
}

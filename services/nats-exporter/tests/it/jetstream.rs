//! JetStream of one server: every row of both families equals jsz, and all of jsz is present.

use crate::support::{
    Exporter, Labels, Page, jetstream_as, labels, make_consumer, make_stream, monitor, publish, take,
};
use agentforge_harness::{NatsOptions, NatsServer, eventually, promtool, require};
use async_nats::jetstream::{consumer::pull, stream};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Accounts, a system account, JetStream in two of them.
pub const ACCOUNTS: &str = r#"
server_name: solo
accounts {
  A: { jetstream: enabled, users: [{user: a, password: secret-a}] }
  B: { jetstream: enabled, users: [{user: b, password: secret-b}] }
  $SYS: { users: [{user: sys, password: secret-sys}] }
}
"#;

/// Streams and consumers of every kind, with messages in every state.
pub async fn furnish(server: &NatsServer) {
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
    let fleeting = pull::Config { inactive_threshold: Duration::from_secs(600), ..Default::default() };
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
        eventually(Duration::from_secs(20), "the copy is complete", || async {
            js.get_stream(name).await.ok()?.cached_info().state.messages.eq(&10).then_some(())
        })
        .await;
    }
}

/// Series as they must be, written down from an answer without the exporter's code.
#[derive(Default)]
struct Expected(BTreeMap<(String, Labels), f64>);

type Pairs<'a> = Vec<(&'a str, &'a str)>;

impl Expected {
    /// What is not in the answer is not a series.
    fn add(&mut self, name: &str, with: &[(&str, &str)], value: &Value) {
        if let Some(value) = value.as_f64() {
            self.0.insert((name.to_owned(), labels(with)), value);
        }
    }

    fn of_server(&mut self, base: &Pairs<'_>, jsz: &Value) {
        let config = &jsz["config"];
        for (name, value) in [
            ("jetstream_disabled", &Value::from(0)),
            ("total_streams", &jsz["streams"]),
            ("total_consumers", &jsz["consumers"]),
            ("total_messages", &jsz["messages"]),
            ("total_message_bytes", &jsz["bytes"]),
            ("max_memory", &config["max_memory"]),
            ("max_storage", &config["max_storage"]),
        ] {
            self.add(&format!("jetstream_server_{name}"), base, value);
        }
        for (name, value) in [
            ("server_memory_bytes", &jsz["memory"]),
            ("server_storage_bytes", &jsz["storage"]),
            ("server_reserved_memory_bytes", &jsz["reserved_memory"]),
            ("server_reserved_storage_bytes", &jsz["reserved_storage"]),
            ("server_max_memory_bytes", &config["max_memory"]),
            ("server_max_storage_bytes", &config["max_storage"]),
            ("api_requests_total", &jsz["api"]["total"]),
            ("api_errors_total", &jsz["api"]["errors"]),
        ] {
            self.add(&format!("nats_jetstream_{name}"), &[("server_name", "solo")], value);
        }
    }

    fn of_account(&mut self, base: &Pairs<'_>, account: &Value) {
        for (name, key) in [
            ("max_memory", "reserved_memory"),
            ("max_storage", "reserved_storage"),
            ("memory_used", "memory"),
            ("storage_used", "storage"),
        ] {
            self.add(&format!("jetstream_account_{name}"), base, &account[key]);
        }
    }

    fn of_stream(&mut self, base: &Pairs<'_>, compact: &Pairs<'_>, s: &Value) {
        let (state, config) = (&s["state"], &s["config"]);
        for (stock_name, name, value) in [
            ("total_messages", "messages", &state["messages"]),
            ("total_bytes", "bytes", &state["bytes"]),
            ("first_seq", "first_seq", &state["first_seq"]),
            ("last_seq", "last_seq", &state["last_seq"]),
            ("consumer_count", "consumers", &state["consumer_count"]),
            ("subject_count", "subjects", &state["num_subjects"]),
            ("limit_bytes", "limit_bytes", &config["max_bytes"]),
            ("limit_messages", "limit_messages", &config["max_msgs"]),
        ] {
            // The server leaves zero subjects out.
            let value = if value.is_null() { &Value::from(0) } else { value };
            self.add(&format!("jetstream_stream_{stock_name}"), base, value);
            self.add(&format!("nats_jetstream_stream_{name}"), compact, value);
        }
        let sources = s["sources"].as_array().into_iter().flatten().map(|origin| ("source", origin));
        let mirror = s["mirror"].is_object().then_some(("mirror", &s["mirror"]));
        for (kind, origin) in sources.chain(mirror) {
            let parts = ["name", "api", "deliver"].map(|part| format!("{kind}_{part}"));
            let own = [(parts[0].as_str(), text(&origin["name"])), (&parts[1], ""), (&parts[2], "")];
            self.add(&format!("jetstream_stream_{kind}_lag"), &[base, &own[..]].concat(), &origin["lag"]);
            let own = [("source", text(&origin["name"]))];
            self.add(&format!("nats_jetstream_stream_{kind}_lag"), &[compact, &own[..]].concat(), &origin["lag"]);
        }
    }

    fn of_consumer(&mut self, base: &Pairs<'_>, compact: &Pairs<'_>, c: &Value) {
        let config = &c["config"];
        let own = [
            ("consumer_name", text(&c["name"])),
            ("consumer_leader", ""),
            ("is_consumer_leader", "true"),
            ("consumer_desc", text(&config["description"])),
        ];
        let stock = [base, &own[..]].concat();
        let compact = [compact, &[("consumer", text(&c["name"]))][..]].concat();
        let is_durable = config["durable_name"].is_string();
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
            self.add(&format!("jetstream_consumer_{name}"), &stock, value);
            if is_durable {
                self.add(&format!("nats_jetstream_consumer_{name}"), &compact, value);
            }
        }
        if !is_durable {
            return;
        }
        let ack_wait = Value::from(config["ack_wait"].as_f64().unwrap() / 1e9);
        for (name, value) in [
            ("max_ack_pending", &config["max_ack_pending"]),
            ("max_deliver", &config["max_deliver"]),
            ("max_waiting", &config["max_waiting"]),
            ("ack_wait_seconds", &ack_wait),
            ("paused", &Value::from(0)),
        ] {
            self.add(&format!("nats_jetstream_consumer_{name}"), &compact, value);
        }
        let leader = [("leader", "solo"), ("server_name", "solo")];
        self.add("nats_jetstream_consumer_leader_info", &[&compact[..], &leader].concat(), &1.into());
    }

    fn of(jsz: &Value) -> Self {
        let mut this = Self::default();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let base: Pairs<'_> = vec![
            ("server_id", "n1"),
            ("server_name", "solo"),
            ("cluster", ""),
            ("domain", ""),
            ("meta_leader", ""),
            ("is_meta_leader", "true"),
        ];
        this.of_server(&base, jsz);
        for account in list(&jsz["account_details"]) {
            let name = text(&account["name"]);
            let own = [("account", name), ("account_name", name), ("account_id", text(&account["id"]))];
            let base = [&base[..], &own].concat();
            this.of_account(&base, &account);
            for s in list(&account["stream_detail"]) {
                let own = [
                    ("stream_name", text(&s["name"])),
                    ("stream_leader", text(&s["cluster"]["leader"])),
                    ("is_stream_leader", "true"),
                    ("stream_raft_group", ""),
                ];
                let base = [&base[..], &own].concat();
                let compact = vec![("account", name), ("stream", text(&s["name"]))];
                this.of_stream(&base, &compact, &s);
                for c in list(&s["consumer_detail"]) {
                    this.of_consumer(&base, &compact, &c);
                }
            }
        }
        this
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a family's values depend on the moment; the tests of the reader have those.
fn is_moving(name: &str) -> bool {
    let ends =
        ["_last_delivery_seconds", "_last_ack_seconds", "_active_duration_ns", "_oldest_pending_timestamp_seconds"];
    ends.iter().any(|end| name.ends_with(end))
}

#[tokio::test]
async fn jetstream_series_are_what_jsz_says_row_by_row() {
    let Some(()) = require("nats-server") else { return };
    let server = NatsServer::start(NatsOptions::default().extra(ACCOUNTS)).await;
    furnish(&server).await;
    let exporter = Exporter::start(&["-jsz=streams,consumers,accounts", &format!("n1,{}", server.monitor_url())]).await;
    let page = exporter.scrape().await;
    let Expected(expected) = Expected::of(&monitor(&server, "jsz?consumers=true&config=true&raft=true").await);
    let mut found = BTreeMap::new();
    for (name, family) in &page.families {
        if (name.starts_with("jetstream_") || name.starts_with("nats_jetstream_")) && !is_moving(name) {
            found.extend(family.series.iter().map(|(labels, value)| ((name.clone(), labels.clone()), *value)));
        }
    }
    let missing: Vec<_> = expected.iter().filter(|(key, _)| !found.contains_key(*key)).collect();
    let invented: Vec<_> = found.iter().filter(|(key, _)| !expected.contains_key(*key)).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing {missing:#?}\ninvented {invented:#?}");
    let wrong: Vec<_> = expected.iter().filter(|(key, value)| found[*key] != **value).collect();
    assert!(wrong.is_empty(), "expected {wrong:#?}");
    moments(&page);
}

/// What depends on the moment.
fn moments(page: &Page) {
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

#[tokio::test]
async fn accounts_go_past_the_servers_page() {
    let Some(()) = require("nats-server") else { return };
    const ACCOUNTS: usize = 1_100;
    let all: String = (0..ACCOUNTS)
        .map(|n| format!("T{n}: {{ jetstream: enabled, users: [{{user: u{n}, password: secret-u{n}}}] }}\n"))
        .collect();
    let server = NatsServer::start(NatsOptions::default().extra(&format!("accounts {{\n{all}}}"))).await;
    let last = jetstream_as(&format!("u{}", ACCOUNTS - 1), &server).await;
    make_consumer(&make_stream(&last, "S", 1).await, "c").await;
    let page = Exporter::start(&[&server.monitor_url()]).await.scrape().await;
    let accounts = page.of("jetstream_account_storage_used");
    assert_eq!(accounts.keys().filter(|labels| labels["account"].starts_with('T')).count(), ACCOUNTS);
    assert_eq!(page.of("nats_jetstream_consumer_num_pending").len(), 1);
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

//! varz, connz, accounts and health of one server: what is on the page is what the endpoints say.

use crate::{
    jetstream::{ACCOUNTS, furnish},
    support::{Exporter, Page, labels, monitor},
};
use agentforge_harness::{NatsOptions, NatsServer, require};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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

/// Numbers of an answer whose path is never left out.
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

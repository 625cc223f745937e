//! varz, routez and subsz: every number of the answer becomes a gauge, however a server's version names it.
//!
//! Strings become info gauges when their key is known to identify something, and times when it is known to
//! be a time: nothing else of the answer leaves the exporter, and no credential can.

use super::{Endpoint, Namespace};
use crate::{
    duration::unix_millis,
    table::{Column, Kind, Table, as_name},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Keys whose text becomes the label `value`.
const INFO_KEYS: [&str; 6] = ["server_id", "server_name", "version", "domain", "leader", "name"];
/// Keys whose text is a moment.
const TIME_KEYS: [&str; 2] = ["start", "config_load_time"];
/// Paths that the known exporter leaves out, with all below them.
const SKIPPED: [&str; 9] = [
    "leaf",
    "trusted_operators_claim",
    "cluster_tls_timeout",
    "cluster_cluster_port",
    "cluster_auth_timeout",
    "gateway_port",
    "gateway_auth_timeout",
    "gateway_tls_timeout",
    "gateway_connect_retries",
];
/// Numbers of varz that only grow while the server runs. The known exporter calls all of them gauges.
const COUNTERS: [&str; 13] = [
    "total_connections",
    "in_msgs",
    "in_bytes",
    "out_msgs",
    "out_bytes",
    "in_client_msgs",
    "in_client_bytes",
    "out_client_msgs",
    "out_client_bytes",
    "slow_consumers",
    "stale_connections",
    "stalled_clients",
    "pinned_account_fails",
];
/// The same for all numbers of a part.
const COUNTER_PARTS: [&str; 6] = [
    "slow_consumer_stats_",
    "stale_connection_stats_",
    "http_req_stats",
    "jetstream_stats_api_total",
    "jetstream_stats_api_errors",
    "ocsp_peer_cache_cache_",
];
/// Nesting that is followed; the servers' answers have five levels.
const DEPTH_MAX: usize = 16;

/// The tables of an answer. With `typed_counters` each counter of varz appears a second time, as a counter.
pub fn tables(
    names: &Namespace,
    endpoint: Endpoint,
    server_id: &str,
    answer: &Value,
    typed_counters: bool,
) -> Vec<Table> {
    let mut walk = Walk { names, endpoint, columns: vec![], values: vec![], infos: vec![], seen: BTreeSet::new() };
    walk.value("", "", answer, DEPTH_MAX);
    let Walk { mut columns, mut values, infos, .. } = walk;
    if typed_counters && endpoint == Endpoint::Varz {
        let start = names.core(endpoint.as_str(), "").len();
        for index in 0..columns.len() {
            let short = &columns[index].name[start..];
            if is_counter(short) {
                let help = format!("The number {short} of varz, counted since the server's start.");
                columns.push(Column::gauge(format!("nats_varz_{short}_total"), help).of(Kind::Counter));
                values.push(values[index]);
            }
        }
    }
    let id = ("server_id", server_id);
    let mut tables = vec![Table::single(endpoint, columns, &[id], &values)];
    let info = |(column, text): (Column, String)| {
        Table::single(endpoint, vec![column], &[id, ("value", text.as_str())], &[1.0])
    };
    tables.extend(infos.into_iter().map(info));
    tables
}

struct Walk<'a> {
    names: &'a Namespace,
    endpoint: Endpoint,
    columns: Vec<Column>,
    values: Vec<f64>,
    infos: Vec<(Column, String)>,
    seen: BTreeSet<String>,
}

impl Walk<'_> {
    fn value(&mut self, path: &str, key: &str, value: &Value, depth: usize) {
        if depth == 0 || SKIPPED.contains(&path) {
            return;
        }
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.value(&joined(path, key), key, value, depth - 1);
                }
            }
            Value::Number(number) => self.number(path, number.as_f64()),
            Value::String(text) if TIME_KEYS.contains(&key) => self.number(path, unix_millis(text)),
            Value::String(text) if INFO_KEYS.contains(&key) && !text.is_empty() => {
                if let Some(column) = self.column(path) {
                    self.infos.push((column, text.clone()));
                }
            }
            _ => {}
        }
    }

    fn number(&mut self, path: &str, value: Option<f64>) {
        if let Some(value) = value
            && let Some(column) = self.column(path)
        {
            self.columns.push(column);
            self.values.push(value);
        }
    }

    /// Two paths can make one name; the first has it.
    fn column(&mut self, path: &str) -> Option<Column> {
        let is_new = !path.is_empty() && self.seen.insert(path.to_owned());
        is_new.then(|| Column::gauge(self.names.core(self.endpoint.as_str(), path), path.to_owned()))
    }
}

/// The path to a key: joined by `_`, without what no name may have, without doubled or outer `_`.
fn joined(path: &str, key: &str) -> String {
    let mut out = path.to_owned();
    for word in as_name(key).split('_').filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push('_');
        }
        out.push_str(word);
    }
    out
}

fn is_counter(short: &str) -> bool {
    COUNTERS.contains(&short) || COUNTER_PARTS.iter().any(|part| short.starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Pages, Snapshot};
    use serde_json::json;
    use std::sync::Arc;

    fn shown(endpoint: Endpoint, answer: &Value, typed: bool) -> Vec<String> {
        let tables = tables(&Namespace::default(), endpoint, "n1", answer, typed);
        let text: Vec<u8> = Pages::new(Arc::new(Snapshot::new(tables, 1000).0)).flatten().collect();
        let text = String::from_utf8(text).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn numbers_known_strings_and_times_are_told_and_nothing_else() {
        let answer = json!({
            "server_name": "a\"b", "host": "10.0.0.1", "auth_required": true, "mem": 5, "cpu": 0.5,
            "start": "1970-01-01T00:00:01.5Z", "now": "2026-01-01T00:00:00Z", "tags": ["x", 1],
            "leaf": {"port": 7422}, "leafnodes": 2, "cluster": {"name": "C", "cluster_port": 6222, "pool_size": 3},
            "http_req_stats": {"/": 1, "/varz": 2, "/debug/vars": 3}, "password": "hunter2",
            "metadata": {"token": "hunter2", "x-y": 7}, "new": {"deep": {"er": 9}}
        });
        assert_eq!(
            shown(Endpoint::Varz, &answer, false),
            [
                "gnatsd_varz_cluster_name{server_id=\"n1\",value=\"C\"} 1",
                "gnatsd_varz_cluster_pool_size{server_id=\"n1\"} 3",
                "gnatsd_varz_cpu{server_id=\"n1\"} 0.5",
                "gnatsd_varz_http_req_stats{server_id=\"n1\"} 1",
                "gnatsd_varz_http_req_stats_debug_vars{server_id=\"n1\"} 3",
                "gnatsd_varz_http_req_stats_varz{server_id=\"n1\"} 2",
                "gnatsd_varz_leafnodes{server_id=\"n1\"} 2",
                "gnatsd_varz_mem{server_id=\"n1\"} 5",
                "gnatsd_varz_metadata_x_y{server_id=\"n1\"} 7",
                "gnatsd_varz_new_deep_er{server_id=\"n1\"} 9",
                "gnatsd_varz_server_name{server_id=\"n1\",value=\"a\\\"b\"} 1",
                "gnatsd_varz_start{server_id=\"n1\"} 1500",
            ]
        );
    }

    #[test]
    fn counters_stand_a_second_time_when_asked_for() {
        let answer = json!({"in_msgs": 3, "connections": 1, "jetstream": {"stats": {"api": {"total": 4}}}});
        let typed = shown(Endpoint::Varz, &answer, true);
        assert!(typed.contains(&"nats_varz_in_msgs_total{server_id=\"n1\"} 3".to_owned()), "{typed:?}");
        assert!(typed.contains(&"nats_varz_jetstream_stats_api_total_total{server_id=\"n1\"} 4".to_owned()));
        assert_eq!(typed.len(), 5);
        assert_eq!(shown(Endpoint::Subsz, &answer, true).len(), 3);
    }
}

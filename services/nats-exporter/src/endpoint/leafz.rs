//! leafz: the leaf nodes that are connected, each with its link.

use super::{Endpoint, Namespace, float};
use crate::{duration, filter::Filter, table::Table};
use serde::Deserialize;

const LINK: [(&str, &str); 7] = [
    ("info", "info"),
    ("conn_rtt", "rtt"),
    ("conn_in_msgs", "in_msgs"),
    ("conn_out_msgs", "out_msgs"),
    ("conn_in_bytes", "in_bytes"),
    ("conn_out_bytes", "out_bytes"),
    ("conn_subscriptions_total", "subscriptions_total"),
];

/// The answer of leafz, as far as it is used.
#[derive(Debug, Deserialize)]
pub struct Answer {
    #[serde(default)]
    leafnodes: u64,
    #[serde(default)]
    leafs: Option<Vec<Leaf>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Leaf {
    name: String,
    account: String,
    ip: String,
    port: u64,
    rtt: String,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: u64,
    subscriptions_list: Vec<String>,
}

/// The tables of an answer.
pub fn tables(names: &Namespace, server_id: &str, answer: &Answer, filter: &Filter, rows_max: usize) -> Vec<Table> {
    let id = ("server_id", server_id);
    let total = names.gauges("leafz", &["conn_nodes_total"]);
    let columns: Vec<_> =
        LINK.iter().map(|(name, help)| crate::table::Column::gauge(names.core("leafz", name), *help)).collect();
    let mut links = Table::new(Endpoint::Leafz, columns.into(), rows_max);
    let mut subscriptions =
        Table::new(Endpoint::Leafz, names.gauges("leafz", &["conn_subscriptions"]).into(), rows_max);
    for leaf in answer.leafs.iter().flatten().filter(|leaf| filter.account.admits(&leaf.account)) {
        let port = leaf.port.to_string();
        let labels = [
            id,
            ("account", &*leaf.account),
            ("account_id", &*leaf.account),
            ("ip", &*leaf.ip),
            ("port", &*port),
            ("name", &*leaf.name),
        ];
        let rtt = duration::seconds(&leaf.rtt).unwrap_or(0.0);
        let counts = [leaf.in_msgs, leaf.out_msgs, leaf.in_bytes, leaf.out_bytes, leaf.subscriptions].map(float);
        let [in_msgs, out_msgs, in_bytes, out_bytes, subs] = counts;
        links.push(&labels, &[1.0, rtt, in_msgs, out_msgs, in_bytes, out_bytes, subs]);
        for subject in &leaf.subscriptions_list {
            let with_subject = [&labels[..], &[("subscription", &**subject)]].concat();
            subscriptions.push(&with_subject, &[0.0]);
        }
    }
    vec![Table::single(Endpoint::Leafz, total, &[id], &[float(answer.leafnodes)]), links, subscriptions]
}

//! connz: sums over all connections, and if asked for each connection.
//!
//! The server gives 1024 connections a page; sums are over all pages. A connection's name is a word of its
//! client's choice and often says who is behind it: it is left out unless asked for.

use super::{Endpoint, Namespace, float};
use crate::{
    duration::{seconds, unix_millis},
    filter::Filter,
    table::{Column, Kind, Table},
};
use serde::Deserialize;

/// Connections of a page; more is cut down by the server.
const PAGE: u64 = 1024;

const SUMMARY: [(&str, Kind); 10] = [
    ("num_connections", Kind::Gauge),
    ("total", Kind::Gauge),
    ("offset", Kind::Gauge),
    ("limit", Kind::Gauge),
    ("pending_bytes", Kind::Gauge),
    ("subscriptions", Kind::Gauge),
    ("in_bytes", Kind::Counter),
    ("out_bytes", Kind::Counter),
    ("in_msgs", Kind::Counter),
    ("out_msgs", Kind::Counter),
];
const DETAIL: [(&str, &str, Kind); 11] = [
    ("pending_bytes", "pending_bytes", Kind::Gauge),
    ("subscriptions", "subscriptions", Kind::Gauge),
    ("in_bytes", "in_bytes", Kind::Counter),
    ("out_bytes", "out_bytes", Kind::Counter),
    ("in_msgs", "in_msgs", Kind::Counter),
    ("out_msgs", "out_msgs", Kind::Counter),
    ("start", "start of the connection, milliseconds since 1970", Kind::Untyped),
    ("last_activity", "last activity of the connection, milliseconds since 1970", Kind::Untyped),
    ("rtt", "round trip time in microseconds", Kind::Gauge),
    ("uptime", "age of the connection in milliseconds", Kind::Untyped),
    ("idle", "milliseconds since the last activity", Kind::Gauge),
];

/// Path and query of a page. Accounts are included only on request; the users that come with them are not read.
pub fn path(endpoint: Endpoint, offset: u64) -> String {
    let auth = if endpoint == Endpoint::ConnzDetailed { "auth=true" } else { "auth=false" };
    format!("connz?{auth}&limit={PAGE}&offset={offset}")
}

/// One page of connz: a server gives at most 1024 connections at once.
#[derive(Debug, Deserialize)]
pub struct Page {
    #[serde(default)]
    num_connections: u64,
    /// Connections of all pages.
    #[serde(default)]
    pub total: u64,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    limit: u64,
    #[serde(default)]
    connections: Option<Vec<Connection>>,
}

impl Page {
    /// How many connections the page has.
    pub fn len(&self) -> u64 {
        self.connections.as_ref().map_or(0, |all| all.len() as u64)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Connection {
    cid: u64,
    kind: String,
    r#type: String,
    ip: String,
    port: u64,
    start: String,
    last_activity: String,
    rtt: String,
    uptime: String,
    idle: String,
    pending_bytes: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: u64,
    name: String,
    name_tag: String,
    account: String,
    lang: String,
    version: String,
    tls_version: String,
    tls_cipher_suite: String,
}

/// What pages add up to.
#[derive(Debug)]
pub struct Sum {
    endpoint: Endpoint,
    detail: Option<Table>,
    is_named: bool,
    first: Option<[u64; 3]>,
    connections: u64,
    sums: [u64; 6],
}

impl Sum {
    /// Nothing yet. With `is_named` connections have their names.
    pub fn new(names: &Namespace, endpoint: Endpoint, is_named: bool, rows_max: usize) -> Self {
        let column =
            |(name, help, kind): &(&str, &'static str, Kind)| Column::gauge(names.core("connz", name), *help).of(*kind);
        let detail = (endpoint == Endpoint::ConnzDetailed)
            .then(|| Table::new(endpoint, DETAIL.iter().map(column).collect(), rows_max));
        Self { endpoint, detail, is_named, first: None, connections: 0, sums: [0; 6] }
    }

    /// Adds a page.
    pub fn add(&mut self, server_id: &str, page: &Page, filter: &Filter) {
        self.first.get_or_insert([page.total, page.offset, page.limit]);
        self.connections += page.num_connections;
        for c in page.connections.iter().flatten() {
            let amounts = [c.pending_bytes, c.subscriptions, c.in_bytes, c.out_bytes, c.in_msgs, c.out_msgs];
            for (sum, amount) in self.sums.iter_mut().zip(amounts) {
                *sum = sum.saturating_add(amount);
            }
            if let Some(table) = &mut self.detail
                && (c.account.is_empty() || filter.account.admits(&c.account))
            {
                detail(table, server_id, c, amounts, self.is_named);
            }
        }
    }

    /// Ends the sum: one table for each kind of row that was asked for.
    pub fn tables(self, names: &Namespace, server_id: &str) -> Vec<Table> {
        let [total, offset, limit] = self.first.unwrap_or_default();
        let columns = SUMMARY.iter().map(|(name, kind)| Column::gauge(names.core("connz", name), *name).of(*kind));
        let [pending, subscriptions, in_bytes, out_bytes, in_msgs, out_msgs] = self.sums;
        let values =
            [self.connections, total, offset, limit, pending, subscriptions, in_bytes, out_bytes, in_msgs, out_msgs];
        let summary = Table::single(self.endpoint, columns.collect(), &[("server_id", server_id)], &values.map(float));
        [summary].into_iter().chain(self.detail).collect()
    }
}

fn detail(table: &mut Table, server_id: &str, c: &Connection, amounts: [u64; 6], is_named: bool) {
    let (cid, port) = (c.cid.to_string(), c.port.to_string());
    let labels = [
        ("server_id", server_id),
        ("cid", &*cid),
        ("kind", &*c.kind),
        ("type", &*c.r#type),
        ("ip", &*c.ip),
        ("port", &*port),
        ("name", if is_named { &*c.name } else { "" }),
        ("name_tag", if is_named { &*c.name_tag } else { "" }),
        ("account", &*c.account),
        ("account_id", &*c.account),
        ("lang", &*c.lang),
        ("version", &*c.version),
        ("tls_version", &*c.tls_version),
        ("tls_cipher_suite", &*c.tls_cipher_suite),
    ];
    let millis = |text: &str| unix_millis(text).unwrap_or(-1.0);
    let lasting = |text: &str, unit: f64| seconds(text).map_or(-1.0, |s| (s * unit).round());
    let [pending, subscriptions, in_bytes, out_bytes, in_msgs, out_msgs] = amounts.map(float);
    // No round trip was measured yet: the known exporter has 0 then, and -1 for what it cannot read.
    let rtt = if c.rtt.is_empty() { 0.0 } else { lasting(&c.rtt, 1e6) };
    let values = [
        pending,
        subscriptions,
        in_bytes,
        out_bytes,
        in_msgs,
        out_msgs,
        millis(&c.start),
        millis(&c.last_activity),
        rtt,
        lasting(&c.uptime, 1e3),
        lasting(&c.idle, 1e3),
    ];
    table.push(&labels, &values);
}

//! accstatz and accountz: traffic and limits by account.

use super::{Endpoint, Namespace, flag, float};
use crate::{filter::Filter, table::Table};
use serde::Deserialize;

const TRAFFIC: [&str; 9] = [
    "current_connections",
    "total_connections",
    "subscriptions",
    "leaf_nodes",
    "sent_messages",
    "sent_bytes",
    "received_messages",
    "received_bytes",
    "slow_consumers",
];

const DETAILS: [&str; 15] = [
    "client_connections",
    "leafnode_connections",
    "subscriptions",
    "is_system",
    "expired",
    "complete",
    "jetstream_enabled",
    "limit_subs",
    "limit_data",
    "limit_payload",
    "limit_imports",
    "limit_exports",
    "limit_wildcards",
    "limit_conn",
    "limit_leaf",
];

/// The answer of accstatz: traffic of each account.
#[derive(Debug, Deserialize)]
pub struct Traffic {
    #[serde(default)]
    account_statz: Option<Vec<AccountTraffic>>,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct AccountTraffic {
    acc: String,
    name: String,
    conns: u64,
    leafnodes: u64,
    total_conns: u64,
    num_subscriptions: u64,
    sent: Amount,
    received: Amount,
    slow_consumers: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Amount {
    msgs: u64,
    bytes: u64,
}

/// The list of accounts.
#[derive(Debug, Deserialize)]
pub struct List {
    /// The ids of all accounts; absent on a server without any.
    #[serde(default)]
    pub accounts: Option<Vec<String>>,
}

/// The answer of accountz for one account.
#[derive(Debug, Deserialize)]
pub struct Details {
    account_detail: Option<Account>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Account {
    account_name: String,
    name_tag: String,
    is_system: bool,
    expired: bool,
    complete: bool,
    jetstream_enabled: bool,
    leafnode_connections: u64,
    client_connections: u64,
    subscriptions: u64,
    decoded_jwt: Option<Jwt>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Jwt {
    nats: Claims,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Limits {
    subs: f64,
    data: f64,
    payload: f64,
    imports: f64,
    exports: f64,
    wildcards: bool,
    conn: f64,
    leaf: f64,
}

/// The table of accstatz.
pub fn traffic(names: &Namespace, server_id: &str, answer: &Traffic, filter: &Filter, rows_max: usize) -> Table {
    let mut table = Table::new(Endpoint::Accstatz, names.gauges("accstatz", &TRAFFIC).into(), rows_max);
    for a in answer.account_statz.iter().flatten().filter(|a| filter.account.admits(&a.acc)) {
        // The known exporter gives the id twice; dashboards use either label.
        let labels =
            [("server_id", server_id), ("account", &*a.acc), ("account_id", &*a.acc), ("account_name", &*a.name)];
        let values = [
            a.conns,
            a.total_conns,
            a.num_subscriptions,
            a.leafnodes,
            a.sent.msgs,
            a.sent.bytes,
            a.received.msgs,
            a.received.bytes,
            a.slow_consumers,
        ];
        table.push(&labels, &values.map(float));
    }
    table
}

/// The table of accountz, empty.
pub fn details_table(names: &Namespace, rows_max: usize) -> Table {
    Table::new(Endpoint::Accountz, names.gauges("accountz", &DETAILS).into(), rows_max)
}

/// Adds one account to the table.
pub fn add_details(table: &mut Table, server_id: &str, answer: &Details) {
    let Some(a) = &answer.account_detail else { return };
    let none = Limits::default();
    let limits = a.decoded_jwt.as_ref().map_or(&none, |jwt| &jwt.nats.limits);
    let labels = [("server_id", server_id), ("account_id", &*a.account_name), ("account_name", &*a.name_tag)];
    let values = [
        float(a.client_connections),
        float(a.leafnode_connections),
        float(a.subscriptions),
        flag(a.is_system),
        flag(a.expired),
        flag(a.complete),
        flag(a.jetstream_enabled),
        limits.subs,
        limits.data,
        limits.payload,
        limits.imports,
        limits.exports,
        flag(limits.wildcards),
        limits.conn,
        limits.leaf,
    ];
    table.push(&labels, &values);
}

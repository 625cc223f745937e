//! gatewayz: the links to and from other clusters.

use super::{Endpoint, Namespace, flag, float};
use crate::{
    duration::{moment, seconds, unix_seconds},
    table::{Column, Table},
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Name and help.
const LINK: [(&str, &str); 12] = [
    ("configured", "configured"),
    ("conn_start_time_seconds", "conn_start_time_seconds"),
    ("conn_last_activity_seconds", "conn_last_activity_seconds"),
    ("conn_uptime_seconds", "conn_uptime_seconds"),
    ("conn_idle_seconds", "conn_idle_seconds"),
    ("conn_rtt", "rtt"),
    ("conn_pending_bytes", "pending_bytes"),
    ("conn_in_msgs", "in_msgs"),
    ("conn_out_msgs", "out_msgs"),
    ("conn_in_bytes", "in_bytes"),
    ("conn_out_bytes", "out_bytes"),
    ("conn_subscriptions", "subscriptions"),
];

/// The answer of gatewayz, as far as it is used.
#[derive(Debug, Deserialize)]
pub struct Answer {
    #[serde(default)]
    name: String,
    #[serde(default)]
    outbound_gateways: BTreeMap<String, Gateway>,
    #[serde(default)]
    inbound_gateways: BTreeMap<String, Vec<Gateway>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Gateway {
    configured: bool,
    connection: Option<Connection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Connection {
    cid: u64,
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
}

/// The tables of an answer.
pub fn tables(names: &Namespace, server_id: &str, answer: &Answer, rows_max: usize) -> Vec<Table> {
    let outbound = answer.outbound_gateways.iter();
    let inbound = answer.inbound_gateways.iter().flat_map(|(remote, all)| all.iter().map(move |g| (remote, g)));
    vec![
        links(names, server_id, &answer.name, "outbound_gateway", outbound, rows_max),
        links(names, server_id, &answer.name, "inbound_gateway", inbound, rows_max),
    ]
}

fn links<'a>(
    names: &Namespace,
    server_id: &str,
    own: &str,
    direction: &str,
    all: impl Iterator<Item = (&'a String, &'a Gateway)>,
    rows_max: usize,
) -> Table {
    let column = |(name, help): &(&str, &'static str)| {
        Column::gauge(names.core("gatewayz", &format!("{direction}_{name}")), *help)
    };
    let mut table = Table::new(Endpoint::Gatewayz, LINK.iter().map(column).collect(), rows_max);
    let none = Connection::default();
    for (remote, gateway) in all {
        let c = gateway.connection.as_ref().unwrap_or(&none);
        let cid = c.cid.to_string();
        let labels =
            [("gateway_name", own), ("cid", &*cid), ("remote_gateway_name", &**remote), ("server_id", server_id)];
        let time = |text: &str| moment(text).map_or(f64::NAN, unix_seconds);
        let lasting = |text: &str| seconds(text).unwrap_or(f64::NAN);
        let counts = [c.pending_bytes, c.in_msgs, c.out_msgs, c.in_bytes, c.out_bytes, c.subscriptions].map(float);
        let [pending, in_msgs, out_msgs, in_bytes, out_bytes, subscriptions] = counts;
        let values = [
            flag(gateway.configured),
            time(&c.start),
            time(&c.last_activity),
            lasting(&c.uptime),
            lasting(&c.idle),
            lasting(&c.rtt),
            pending,
            in_msgs,
            out_msgs,
            in_bytes,
            out_bytes,
            subscriptions,
        ];
        table.push(&labels, &values);
    }
    table
}

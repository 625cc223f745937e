//! healthz and its two variants: a status word becomes 0 for ok and 1 for everything else.
//!
//! An answer of 503 is an answer. A server that cannot be reached has no status, and the value
//! `unreachable`, as the known exporter has it.

use super::{Endpoint, Namespace, flag};
use crate::table::{Column, Table};
use serde::Deserialize;

/// The status text of a server that gave none.
const UNREACHABLE: &str = "unreachable";
/// The status word comes from the server; a longer text is not a word.
const STATUS_MAX_CHARS: usize = 64;

/// The answer of healthz, which a sick server gives with a status of 5xx.
#[derive(Debug, Deserialize)]
pub struct Answer {
    status: String,
}

/// The tables of an answer, or of its absence.
pub fn tables(names: &Namespace, endpoint: Endpoint, server_id: &str, answer: Option<&Answer>) -> Vec<Table> {
    let subsystem = endpoint.as_str();
    let id = ("server_id", server_id);
    let status: String =
        answer.map_or(UNREACHABLE.to_owned(), |answer| answer.status.chars().take(STATUS_MAX_CHARS).collect());
    let is_ok = status == "ok";
    let bad = if answer.is_some() { flag(!is_ok) } else { f64::NAN };
    vec![
        Table::single(endpoint, names.gauges(subsystem, &["status"]), &[id], &[bad]),
        Table::single(
            endpoint,
            vec![Column::gauge(names.core(subsystem, "status_value"), "status value")],
            &[id, ("value", &status)],
            &[flag(is_ok)],
        ),
    ]
}

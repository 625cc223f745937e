//! Rows of numbers under shared columns: what a scrape keeps of the servers' answers until it is written.
//!
//! Ten thousand consumers are kept in a few large allocations: labels are stored once in one string, numbers in one
//! list. What all rows of a table share (its server) and what several share (a stream) is stored once. Independent of
//! NATS; does no I/O.

use crate::endpoint::Endpoint;
use std::{borrow::Cow, sync::Arc};

/// What a column's numbers are, in the words of the text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until its server restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// As the known exporter exports times of connections.
    Untyped,
}

impl Kind {
    /// The word after `# TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Untyped => "untyped",
        }
    }
}

/// One family of metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The whole name.
    pub name: Cow<'static, str>,
    /// The text after `# HELP`, one line.
    pub help: Cow<'static, str>,
    /// Counter, gauge or untyped.
    pub kind: Kind,
}

impl Column {
    /// A column of numbers that go up and down.
    pub fn gauge(name: impl Into<Cow<'static, str>>, help: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), help: help.into(), kind: Kind::Gauge }
    }

    /// The same as another kind.
    #[must_use]
    pub fn of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }
}

/// Rows that have the same columns. A number that is not there is NaN, and gives no series.
#[derive(Debug)]
pub struct Table {
    endpoint: Endpoint,
    columns: Arc<[Column]>,
    prefix: String,
    suffix: String,
    groups: Vec<u32>,
    group_text: String,
    text: String,
    rows: Vec<Row>,
    values: Vec<f64>,
    rows_max: usize,
    refused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    group: u32,
    text_end: u32,
    is_kept: bool,
}

impl Table {
    /// An empty table for the answers of `endpoint`, of at most `rows_max` rows.
    pub fn new(endpoint: Endpoint, columns: Arc<[Column]>, rows_max: usize) -> Self {
        Self {
            endpoint,
            columns,
            prefix: String::new(),
            suffix: String::new(),
            groups: Vec::new(),
            group_text: String::new(),
            text: String::new(),
            rows: Vec::new(),
            values: Vec::new(),
            rows_max: rows_max.min(u32::MAX as usize),
            refused: 0,
        }
    }

    /// A table of one row, with these labels.
    pub fn single(endpoint: Endpoint, columns: Vec<Column>, labels: &[(&str, &str)], values: &[f64]) -> Self {
        let mut table = Self::new(endpoint, columns.into(), 1);
        table.push(labels, values);
        table
    }

    /// Labels that come first in every row.
    pub fn set_prefix(&mut self, labels: &[(&str, &str)]) {
        self.prefix = labels_text(labels);
    }

    /// Labels that come last in every row.
    pub fn set_suffix(&mut self, labels: &[(&str, &str)]) {
        self.suffix = labels_text(labels);
    }

    /// The number of the group that the next [`end_group`](Self::end_group) closes.
    pub fn open_group(&self) -> u32 {
        // There are never more groups than streams, which are counted by the server in an int.
        u32::try_from(self.groups.len()).unwrap_or(u32::MAX)
    }

    /// Closes the open group: its rows get these labels after the table's.
    pub fn end_group(&mut self, labels: &[(&str, &str)]) {
        for (name, value) in labels {
            push_label(&mut self.group_text, name, value);
        }
        self.groups.push(u32::try_from(self.group_text.len()).unwrap_or(u32::MAX));
    }

    /// Adds a row to the open group. Refused, and counted, when the table is full.
    pub fn push(&mut self, labels: &[(&str, &str)], values: &[f64]) {
        debug_assert_eq!(values.len(), self.columns.len(), "a row has a number for each column");
        if self.rows.len() >= self.rows_max || self.text.len() > TEXT_MAX {
            self.refused += values.iter().filter(|v| !v.is_nan()).count() as u64;
            return;
        }
        for (name, value) in labels {
            push_label(&mut self.text, name, value);
        }
        let text_end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.rows.push(Row { group: self.open_group(), text_end, is_kept: true });
        self.values.extend_from_slice(values);
    }

    /// Whose answers these are.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The families that the numbers of each row belong to, in their order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many rows there are, dropped ones too.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Series that had no place.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// A row's number in a column, if it gives a series.
    pub fn value(&self, row: usize, column: usize) -> Option<f64> {
        let value = self.values[row * self.columns.len() + column];
        (self.rows[row].is_kept && !value.is_nan()).then_some(value)
    }

    /// How many series a row gives.
    pub fn series(&self, row: usize) -> u64 {
        (0..self.columns.len()).filter(|column| self.value(row, *column).is_some()).count() as u64
    }

    /// Takes a row out.
    pub fn drop_row(&mut self, row: usize) {
        self.rows[row].is_kept = false;
    }

    /// The labels of a row in their parts, each label with a comma after it.
    pub fn labels(&self, row: usize) -> [&str; 4] {
        let at = self.rows[row];
        let start = row.checked_sub(1).map_or(0, |before| self.rows[before].text_end) as usize;
        [&self.prefix, self.group(at.group), &self.text[start..at.text_end as usize], &self.suffix]
    }

    fn group(&self, group: u32) -> &str {
        let index = group as usize;
        let Some(end) = self.groups.get(index) else { return "" };
        let start = index.checked_sub(1).map_or(0, |before| self.groups[before]);
        &self.group_text[start as usize..*end as usize]
    }
}

/// Offsets are 32 bits wide; no page that anybody can read has labels this long.
const TEXT_MAX: usize = 1 << 30;

fn labels_text(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        push_label(&mut text, name, value);
    }
    text
}

/// Writes `name="value",` with the value escaped as the text format wants it.
fn push_label(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'"' => "\\\"",
            _ => "\\n",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push_str("\",");
}

/// Whether a text can be a label's name, and with `:` a metric's.
pub fn is_name(text: &str, colons: bool) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || (colons && c == b':');
    !text.is_empty() && text.bytes().all(fits) && !text.as_bytes()[0].is_ascii_digit()
}

/// The text with everything that no name may have replaced by `_`.
pub fn as_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&'static str]) -> Table {
        let columns: Vec<Column> = columns.iter().map(|name| Column::gauge(*name, "h")).collect();
        Table::new(Endpoint::Jsz, columns.into(), 3)
    }

    #[test]
    fn rows_have_the_labels_of_table_group_and_row() {
        let mut t = table(&["a"]);
        t.push(&[("consumer", "c1")], &[1.0]);
        t.push(&[("consumer", "c2")], &[2.0]);
        t.end_group(&[("stream", "s1")]);
        t.push(&[("consumer", "c3")], &[3.0]);
        t.end_group(&[("stream", "s2")]);
        t.set_prefix(&[("server_id", "n1")]);
        let all: Vec<String> = (0..t.len()).map(|row| t.labels(row).concat()).collect();
        assert_eq!(
            all,
            [
                "server_id=\"n1\",stream=\"s1\",consumer=\"c1\",",
                "server_id=\"n1\",stream=\"s1\",consumer=\"c2\",",
                "server_id=\"n1\",stream=\"s2\",consumer=\"c3\","
            ]
        );
        t.push(&[("consumer", "c4")], &[4.0]);
        assert_eq!((t.len(), t.refused()), (3, 1), "the table is full");
    }

    #[test]
    fn what_is_absent_or_dropped_gives_no_series() {
        let mut t = table(&["a", "b"]);
        t.push(&[], &[1.0, f64::NAN]);
        t.push(&[], &[2.0, 3.0]);
        assert_eq!((t.value(0, 0), t.value(0, 1), t.series(0), t.series(1)), (Some(1.0), None, 1, 2));
        t.drop_row(1);
        assert_eq!(t.series(1), 0);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut t = table(&["a"]);
        t.push(&[("d", "say \"hi\"\\\nbye")], &[1.0]);
        assert_eq!(t.labels(0).concat(), "d=\"say \\\"hi\\\"\\\\\\nbye\",");
    }

    #[test]
    fn names() {
        assert!(is_name("gnatsd", true) && is_name("_a:b", true));
        assert!(!is_name("a:b", false) && !is_name("1a", true) && !is_name("", true) && !is_name("a-b", true));
        assert_eq!(as_name("_nats.ver-1"), "_nats_ver_1");
    }
}

//! One collection's result: the tables of all servers, and the text that is written from them in pieces.
//!
//! A family is kept together although its rows come from several servers, as the text format requires. A page of many
//! megabytes is never in memory: [`Pages`] writes the next piece when it is asked for.

use crate::{endpoint::Endpoint, table::Table};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// Size of a piece: large enough that its overhead does not show, small compared with everything else.
const PIECE_BYTES: usize = 64 << 10;

/// Everything that one collection found. Never changed, and never served to a scrape that came later.
#[derive(Debug)]
pub struct Snapshot {
    tables: Vec<Table>,
    /// By name, with the columns that make them up.
    families: Vec<Vec<(u32, u32)>>,
}

impl Snapshot {
    /// Puts tables together, keeps at most `series_max` series, and reports how many were left out where.
    pub fn new(mut tables: Vec<Table>, series_max: u64) -> (Self, BTreeMap<Endpoint, u64>) {
        let dropped = limit(&mut tables, series_max);
        let mut by_name: BTreeMap<&str, Vec<(u32, u32)>> = BTreeMap::new();
        for (t, table) in (0u32..).zip(&tables) {
            for (c, column) in (0u32..).zip(table.columns()) {
                by_name.entry(&column.name).or_default().push((t, c));
            }
        }
        let families = by_name.into_values().collect();
        (Self { tables, families }, dropped)
    }
}

/// Leaves out rows beyond the limit. Which ones does not depend on the order of the servers' answers: of
/// the tables in their order, rows by their labels.
fn limit(tables: &mut [Table], series_max: u64) -> BTreeMap<Endpoint, u64> {
    let mut dropped: BTreeMap<Endpoint, u64> = BTreeMap::new();
    let mut left = series_max;
    for table in tables {
        if table.refused() > 0 {
            *dropped.entry(table.endpoint()).or_default() += table.refused();
        }
        let total: u64 = (0..table.len()).map(|row| table.series(row)).sum();
        if total <= left {
            left -= total;
            continue;
        }
        let mut rows: Vec<usize> = (0..table.len()).collect();
        rows.sort_by(|a, b| table.labels(*a).cmp(&table.labels(*b)));
        for row in rows {
            let series = table.series(row);
            match left.checked_sub(series) {
                Some(rest) => left = rest,
                None => {
                    // Whole rows only: half of a consumer's series would mislead.
                    left = 0;
                    table.drop_row(row);
                    *dropped.entry(table.endpoint()).or_default() += series;
                }
            }
        }
    }
    dropped
}

/// The text of a snapshot, piece by piece.
#[derive(Debug)]
pub struct Pages {
    snapshot: Arc<Snapshot>,
    family: usize,
    part: usize,
    row: usize,
    has_header: bool,
}

impl Pages {
    /// Starts at the beginning.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, family: 0, part: 0, row: 0, has_header: false }
    }

    fn fill(&mut self, out: &mut Vec<u8>) {
        let snapshot = self.snapshot.clone();
        while let Some(parts) = snapshot.families.get(self.family) {
            while let Some((t, c)) = parts.get(self.part) {
                let (table, column) = (&snapshot.tables[*t as usize], *c as usize);
                let named = &table.columns()[column];
                while self.row < table.len() {
                    let Some(value) = table.value(self.row, column) else {
                        self.row += 1;
                        continue;
                    };
                    if !self.has_header {
                        header(out, &named.name, &named.help, named.kind.as_str());
                        self.has_header = true;
                    }
                    sample(out, &named.name, &table.labels(self.row), value);
                    self.row += 1;
                    if out.len() >= PIECE_BYTES {
                        return;
                    }
                }
                (self.part, self.row) = (self.part + 1, 0);
            }
            (self.family, self.part, self.has_header) = (self.family + 1, 0, false);
        }
    }
}

impl Iterator for Pages {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        // A line is far shorter than this reserve, so the piece is allocated once.
        let mut out = Vec::with_capacity(PIECE_BYTES + 1024);
        self.fill(&mut out);
        (!out.is_empty()).then(|| out.into())
    }
}

fn header(out: &mut Vec<u8>, name: &str, help: &str, kind: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    for part in ["# HELP ", name, " ", &help, "\n# TYPE ", name, " ", kind, "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn sample(out: &mut Vec<u8>, name: &str, labels: &[&str; 4], value: f64) {
    out.extend_from_slice(name.as_bytes());
    if labels.iter().any(|part| !part.is_empty()) {
        out.push(b'{');
        for part in labels {
            out.extend_from_slice(part.as_bytes());
        }
        // Each label has a comma after it; the last one's makes room for the brace.
        out.pop();
        out.push(b'}');
    }
    out.push(b' ');
    number(out, value);
    out.push(b'\n');
}

/// Whole numbers without a fraction, as people read them; the parser takes both.
fn number(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.abs() < EXACT && value.fract() == 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        out.extend_from_slice(value.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, Kind};

    fn table(name: &'static str, rows: &[(&str, f64)]) -> Table {
        let mut table = Table::new(Endpoint::Varz, vec![Column::gauge(name, "a\nb")].into(), 100_000);
        for (id, value) in rows {
            table.push(&[("server_id", id)], &[*value]);
        }
        table
    }

    fn text(snapshot: Snapshot) -> String {
        let all: Vec<u8> = Pages::new(Arc::new(snapshot)).flatten().collect();
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_family_of_two_servers_stands_together_with_one_header() {
        let tables = vec![table("b", &[("n1", 1.0)]), table("a", &[("n1", 0.5)]), table("b", &[("n2", 2.0)])];
        let (snapshot, dropped) = Snapshot::new(tables, 10);
        assert!(dropped.is_empty());
        assert_eq!(
            text(snapshot),
            "# HELP a a\\nb\n# TYPE a gauge\na{server_id=\"n1\"} 0.5\n\
             # HELP b a\\nb\n# TYPE b gauge\nb{server_id=\"n1\"} 1\nb{server_id=\"n2\"} 2\n"
        );
    }

    #[test]
    fn pieces_are_small_and_lose_nothing() {
        let rows: Vec<(String, f64)> = (0..20_000).map(|n| (format!("{n:05}"), f64::from(n))).collect();
        let rows: Vec<(&str, f64)> = rows.iter().map(|(id, v)| (id.as_str(), *v)).collect();
        let (snapshot, _) = Snapshot::new(vec![table("a", &rows)], 100_000);
        let pieces: Vec<Bytes> = Pages::new(Arc::new(snapshot)).collect();
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < PIECE_BYTES + 1024));
        let all = String::from_utf8(pieces.concat()).unwrap();
        assert_eq!(all.lines().filter(|line| line.starts_with("a{")).count(), 20_000);
        assert_eq!(all.matches("# TYPE").count(), 1);
    }

    #[test]
    fn beyond_the_limit_the_same_rows_stay_whatever_came_first() {
        for rows in [[("x", 1.0), ("a", 2.0), ("m", 3.0)], [("m", 3.0), ("x", 1.0), ("a", 2.0)]] {
            let (snapshot, dropped) = Snapshot::new(vec![table("f", &rows)], 2);
            assert_eq!(dropped, BTreeMap::from([(Endpoint::Varz, 1)]));
            let text = text(snapshot);
            assert!(text.contains("\"a\"") && text.contains("\"m\"") && !text.contains("\"x\""), "{text}");
        }
    }

    #[test]
    fn numbers_and_rows_without_labels() {
        let column = Column::gauge("g", "h").of(Kind::Counter);
        let table = |v| Table::single(Endpoint::Varz, vec![column.clone()], &[], &[v]);
        for (value, shown) in [
            (0.0, "0"),
            (-1.0, "-1"),
            (1e15, "1000000000000000"),
            (0.25, "0.25"),
            (18_446_744_073_709_551_615.0, "18446744073709552000"),
        ] {
            let (snapshot, _) = Snapshot::new(vec![table(value)], 1);
            assert_eq!(text(snapshot), format!("# HELP g h\n# TYPE g counter\ng {shown}\n"));
        }
        assert_eq!(text(Snapshot::new(vec![table(f64::NAN)], 1).0), "", "no header without a series");
    }
}

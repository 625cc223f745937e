//! When two servers say that they lead the same stream or consumer, only one of them is believed.
//!
//! Servers are not asked at the same instant, so around a change of leaders two can claim it. The later
//! leader wins: its figures are the true ones. Two clusters that have equal names cannot be told apart by
//! the compact family's labels: the first one's rows stay, the others are left out and counted.

use crate::table::Table;
use std::collections::{HashMap, HashSet, hash_map::Entry};

/// A table whose rows are claims to lead, each with the time since when.
pub struct Claimed {
    pub table: Table,
    /// Microseconds since 1970; 0 where the server does not say.
    since: Vec<i64>,
}

impl Claimed {
    pub fn new(table: Table) -> Self {
        Self { table, since: Vec::new() }
    }

    pub fn push(&mut self, labels: &[(&str, &str)], values: &[f64], since: Option<&str>) {
        let before = self.table.len();
        self.table.push(labels, values);
        if self.table.len() > before {
            self.since.push(since.and_then(crate::duration::moment).map_or(0, |t| t.as_microsecond()));
        }
    }
}

/// What one server says to lead.
pub struct Claims {
    /// The cluster's name; empty where there is none.
    pub cluster: String,
    pub streams: Claimed,
    pub replicas: Table,
    pub sources: Table,
    pub mirrors: Table,
    pub consumers: Claimed,
    pub leaders: Table,
    pub plain: Vec<Table>,
}

/// The tables of all servers without repeated rows, and how many series of other clusters were left out.
pub fn settle(mut all: Vec<Claims>) -> (Vec<Table>, u64) {
    let mut foreign = 0;
    if all.len() > 1 {
        let clusters: Vec<String> = all.iter().map(|claims| claims.cluster.clone()).collect();
        for (server, row, is_foreign) in losers(&clusters, &all, |claims| &claims.streams) {
            let claims = &mut all[server];
            let stream = claims.streams.table.labels(row).concat();
            let mut series = drop_row(&mut claims.streams.table, row);
            for table in [&mut claims.replicas, &mut claims.sources, &mut claims.mirrors] {
                for row in 0..table.len() {
                    if table.labels(row).concat().starts_with(&stream) {
                        series += drop_row(table, row);
                    }
                }
            }
            foreign += if is_foreign { series } else { 0 };
        }
        for (server, row, is_foreign) in losers(&clusters, &all, |claims| &claims.consumers) {
            let claims = &mut all[server];
            // Both tables get their rows together.
            let series = drop_row(&mut claims.consumers.table, row) + drop_row(&mut claims.leaders, row);
            foreign += if is_foreign { series } else { 0 };
        }
    }
    let mut tables = Vec::new();
    for claims in all {
        tables.extend(claims.plain);
        tables.extend([claims.streams.table, claims.replicas, claims.sources, claims.mirrors]);
        tables.extend([claims.consumers.table, claims.leaders]);
    }
    (tables, foreign)
}

fn drop_row(table: &mut Table, row: usize) -> u64 {
    let series = table.series(row);
    table.drop_row(row);
    series
}

/// Rows that lose: server, row, and whether the winner is of another cluster.
fn losers(clusters: &[String], all: &[Claims], of: fn(&Claims) -> &Claimed) -> Vec<(usize, usize, bool)> {
    let mut holders: HashMap<[&str; 4], (usize, usize)> = HashMap::new();
    let mut lost: HashSet<(usize, usize, bool)> = HashSet::new();
    for (server, claims) in all.iter().enumerate() {
        let claimed = of(claims);
        for row in 0..claimed.table.len() {
            match holders.entry(claimed.table.labels(row)) {
                Entry::Vacant(free) => {
                    free.insert((server, row));
                }
                Entry::Occupied(mut held) => {
                    let (holder, held_row) = *held.get();
                    let is_foreign = clusters[server].is_empty() || clusters[server] != clusters[holder];
                    if !is_foreign && claimed.since[row] >= of(&all[holder]).since[held_row] {
                        lost.insert((holder, held_row, false));
                        held.insert((server, row));
                    } else {
                        lost.insert((server, row, is_foreign));
                    }
                }
            }
        }
    }
    lost.into_iter().collect()
}

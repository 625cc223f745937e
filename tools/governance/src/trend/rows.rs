//! The file of rows: appended to, read from its end, and repaired where the last write was cut off.

use super::usage::{Use, rounded};
use crate::exit::broken;
use agentforge_terminal::{Failure, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions, create_dir_all},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// So much of the file's end is read: tens of thousands of rows, more than the largest window of a usual machine.
const TAIL_BYTES_MAX: u64 = 16 << 20;

/// One sample of one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its number, rising through the file.
    pub seq: u64,
    /// When it was taken; rows of one run share it.
    pub at: Timestamp,
    /// Whose.
    pub container: String,
    /// Percent of one processor.
    pub cpu_pct: f64,
    /// Percent of the memory that it may use.
    pub mem_pct: f64,
    /// Bytes of memory.
    pub mem_used: u64,
    /// Bytes received so far.
    pub net_rx_bytes: u64,
    /// Bytes sent so far.
    pub net_tx_bytes: u64,
    /// Bytes received since the row before of this container; 0 in its first one.
    pub delta_net_in: i64,
    /// Bytes sent since then.
    pub delta_net_out: i64,
    /// Memory now less memory then.
    pub delta_mem_used: i64,
    /// Rows of this container in the window, this one among them.
    pub window: u64,
    /// Over the window.
    pub window_cpu_avg: f64,
    /// Over the window.
    pub window_cpu_max: f64,
    /// Over the window.
    pub window_mem_avg: f64,
    /// Over the window.
    pub window_mem_max: f64,
}

/// The rows at the end of the file, each number once.
#[derive(Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
}

/// Opens the file, locked against other runs.
///
/// # Errors
/// It cannot be made, opened or locked.
pub fn open(path: &Path) -> Result<File> {
    let failed = |e: io::Error| Failure::new(format!("{}: {e}", path.display()));
    if let Some(folder) = path.parent() {
        create_dir_all(folder).map_err(failed)?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

impl Rows {
    /// Reads the end of the file. A last line that was cut off is removed, or ended where only its end is missing.
    ///
    /// # Errors
    /// Broken input: another line is not a row.
    pub fn read(path: &Path, file: &mut File) -> Result<Self> {
        let failed = |e: io::Error| broken(path, 0, e);
        let length = file.metadata().map_err(failed)?.len();
        let begin = length.saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(begin)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        if begin > 0 {
            let first = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| n + 1);
            bytes.drain(..first);
        }
        let kept = length - bytes.len() as u64;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        let mut rows = Vec::new();
        let mut seen = BTreeSet::new();
        for (n, line) in bytes[..whole].split(|b| *b == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let row: Row = serde_json::from_slice(line)
                .map_err(|e| broken(path, lines_before(path, kept) + n + 1, format_args!("this is not a row: {e}")))?;
            if seen.insert(row.seq) {
                rows.push(row);
            }
        }
        match serde_json::from_slice::<Row>(&bytes[whole..]) {
            Ok(row) => {
                file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(b"\n")).map_err(failed)?;
                if seen.insert(row.seq) {
                    rows.push(row);
                }
            }
            Err(_) => file.set_len(kept + whole as u64).map_err(failed)?,
        }
        rows.sort_by_key(|row| row.seq);
        Ok(Self { rows })
    }

    /// Adds a row for each use; gives the new ones.
    pub fn add(&mut self, used: &[Use], at: Timestamp, window: usize) -> Vec<Row> {
        let first = self.rows.last().map_or(1, |row| row.seq + 1);
        let begin = self.rows.len();
        for (seq, used) in (first..).zip(used) {
            let before: Vec<&Row> =
                self.rows.iter().rev().filter(|row| row.container == used.container).take(window).collect();
            let since = |of: fn(&Row) -> u64, now: u64| before.first().map_or(0, |row| now as i64 - of(row) as i64);
            let of_window = |of: fn(&Row) -> f64, now: f64| {
                let earlier = before.iter().take(window.saturating_sub(1)).map(|row| of(row));
                let values: Vec<f64> = std::iter::once(now).chain(earlier).collect();
                let max = values.iter().copied().fold(f64::MIN, f64::max);
                (rounded(values.iter().sum::<f64>() / values.len() as f64), max, values.len() as u64)
            };
            let (window_cpu_avg, window_cpu_max, samples) = of_window(|row| row.cpu_pct, used.cpu_pct);
            let (window_mem_avg, window_mem_max, _) = of_window(|row| row.mem_pct, used.mem_pct);
            let row = Row {
                seq,
                at,
                container: used.container.clone(),
                cpu_pct: used.cpu_pct,
                mem_pct: used.mem_pct,
                mem_used: used.mem_used,
                net_rx_bytes: used.net_rx_bytes,
                net_tx_bytes: used.net_tx_bytes,
                delta_net_in: since(|row| row.net_rx_bytes, used.net_rx_bytes),
                delta_net_out: since(|row| row.net_tx_bytes, used.net_tx_bytes),
                delta_mem_used: since(|row| row.mem_used, used.mem_used),
                window: samples,
                window_cpu_avg,
                window_cpu_max,
                window_mem_avg,
                window_mem_max,
            };
            self.rows.push(row);
        }
        self.rows[begin..].to_vec()
    }

    /// The newest row of each container of the last run.
    pub fn latest(&self) -> BTreeMap<&str, &Row> {
        let Some(last) = self.rows.last() else { return BTreeMap::new() };
        self.rows.iter().filter(|row| row.at == last.at).map(|row| (row.container.as_str(), row)).collect()
    }

    /// The last rows of each container that [`Rows::latest`] has.
    pub fn window(&self, window: usize) -> BTreeMap<&str, Vec<&Row>> {
        let mut found: BTreeMap<&str, Vec<&Row>> = self.latest().into_keys().map(|name| (name, Vec::new())).collect();
        for row in self.rows.iter().rev() {
            if let Some(rows) = found.get_mut(row.container.as_str())
                && rows.len() < window
            {
                rows.push(row);
            }
        }
        found
    }
}

/// Lines before a place in the file.
fn lines_before(path: &Path, bytes: u64) -> usize {
    let Ok(file) = File::open(path) else { return 0 };
    BufReader::new(file.take(bytes)).split(b'\n').count()
}

/// Appends rows, each with its end of line, in one write.
///
/// # Errors
/// They cannot be written.
pub fn append(path: &Path, file: &mut File, rows: &[Row]) -> Result {
    let mut text = String::new();
    for row in rows {
        text.push_str(&crate::artifact::canonical(row));
        text.push('\n');
    }
    let written = file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(text.as_bytes()));
    written.map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

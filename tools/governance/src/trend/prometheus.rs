//! The metrics of the window. Pure.
//!
//! The histograms have the names that dashboards know. These are those of a gauge with an ending, so their families are
//! written one by one and without a type; and they are of a window, so they fall as well as rise.

use super::rows::{Row, Rows};
use std::{collections::BTreeMap, fmt::Write};

/// A value of a row, as it is written.
type Shown = fn(&Row) -> String;
/// A value of a row that a histogram counts.
type Percent = fn(&Row) -> f64;

/// The newest value of each container, and what the window holds.
pub fn text(rows: &Rows, window: usize, cpu: Option<&[f64]>, mem: Option<&[f64]>) -> String {
    let (latest, window) = (rows.latest(), rows.window(window));
    let mut text = String::new();
    let gauges: [(&str, &str, Shown); 4] = [
        ("resource_trend_cpu_pct", "Percent of one processor that a container used last.", |r| r.cpu_pct.to_string()),
        ("resource_trend_mem_pct", "Percent of its memory that a container used last.", |r| r.mem_pct.to_string()),
        ("resource_trend_net_rx_bytes", "Bytes that a container has received.", |r| r.net_rx_bytes.to_string()),
        ("resource_trend_net_tx_bytes", "Bytes that a container has sent.", |r| r.net_tx_bytes.to_string()),
    ];
    for (name, help, of) in gauges {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (container, row) in &latest {
            let _ = writeln!(text, "{name}{{container=\"{}\"}} {}", escaped(container), of(row));
        }
    }
    let histograms: [(&str, Option<&[f64]>, Percent); 2] =
        [("resource_trend_cpu_pct", cpu, |r| r.cpu_pct), ("resource_trend_mem_pct", mem, |r| r.mem_pct)];
    for (name, bounds, of) in histograms {
        if let Some(bounds) = bounds {
            histogram(&mut text, name, bounds, &window, of);
        }
    }
    let samples = window.values().map(Vec::len).max().unwrap_or(0);
    let name = "resource_trend_window_size";
    let _ = writeln!(
        text,
        "# HELP {name} Samples of a container that were looked at.\n# TYPE {name} gauge\n{name} {samples}"
    );
    text
}

fn histogram(text: &mut String, name: &str, bounds: &[f64], window: &BTreeMap<&str, Vec<&Row>>, of: Percent) {
    let values: Vec<f64> = window.values().flatten().map(|row| of(row)).collect();
    let (all, sum) = (values.len(), values.iter().sum::<f64>());
    let _ = writeln!(text, "# HELP {name}_bucket Samples of the window up to a bound.\n# TYPE {name}_bucket untyped");
    for bound in bounds {
        let below = values.iter().filter(|value| *value <= bound).count();
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {below}");
    }
    let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {all}");
    let _ = writeln!(
        text,
        "# HELP {name}_sum Their sum.\n# TYPE {name}_sum untyped\n{name}_sum {}",
        super::usage::rounded(sum)
    );
    let _ = writeln!(text, "# HELP {name}_count How many there are.\n# TYPE {name}_count untyped\n{name}_count {all}");
}

/// As the text format asks for it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

//! What is used, over time: real processes and cgroups, a file that was cut off, and numbers that an oracle has too.

use super::support::{AT, bare, run, said};
use agentforge_harness::{promtool, require};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A process that ends with the test.
struct Busy(Child);

impl Busy {
    fn new(line: &str) -> Self {
        Self(Command::new("sh").args(["-c", line]).stdout(Stdio::null()).spawn().unwrap())
    }
    fn named(&self, name: &str) -> String {
        format!("{name}={}", self.0.id())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const FILES: [&str; 5] = ["trend", "--jsonl", "t.jsonl", "--prom", "t.prom"];
const HISTOGRAMS: [&str; 4] = ["--hist-cpu", "0,10,25,50,75,90,100", "--hist-mem", "0,25,50,75,90,100"];

fn rows(home: &Path) -> Vec<Value> {
    let text = fs::read_to_string(home.join("t.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn processes_are_measured_and_promtool_takes_the_metrics() {
    let home = tempfile::tempdir().unwrap();
    let (busy, idle) = (Busy::new("while :; do :; done"), Busy::new("exec sleep 600"));
    let (of_busy, of_idle) = (busy.named("busy"), idle.named("idle"));
    let sampled = ["--interval", "300ms", "--pid", &of_busy, "--pid", &of_idle];
    let words = [&FILES[..], &HISTOGRAMS, &sampled].concat();
    for _ in 0..3 {
        let said = run(home.path(), &words);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    let rows = rows(home.path());
    let numbers: Vec<_> = rows.iter().map(|row| row["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        (&rows[0]["delta_mem_used"], &rows[0]["delta_net_in"]),
        (&json!(0), &json!(0)),
        "the first has no change"
    );
    let cpu = |row: &Value| row["cpu_pct"].as_f64().unwrap();
    assert!(rows.iter().step_by(2).any(|row| cpu(row) > 1.0), "a loop uses a processor: {rows:?}");
    assert!(rows.iter().skip(1).step_by(2).all(|row| cpu(row) < 5.0), "a sleeper uses none: {rows:?}");
    assert!(rows.iter().all(|row| row["mem_used"].as_u64().unwrap() > 0));
    let text = fs::read_to_string(home.path().join("t.prom")).unwrap();
    assert!(text.contains("\nresource_trend_window_size 3\n"), "{text}");
    assert!(text.contains("resource_trend_cpu_pct{container=\"busy\"} "), "{text}");
    let Some(()) = require("prometheus") else { return };
    let (taken, said) = promtool(&["check", "metrics"], text.as_bytes());
    assert!(taken && said.trim().is_empty(), "{said}");
}

/// A row as another program may have written it.
fn row(seq: u64, cpu: f64) -> String {
    let row = json!({
        "seq": seq, "at": format!("2026-03-01T12:{seq:02}:00Z"), "container": "a\"b", "cpu_pct": cpu, "mem_pct": 30.0,
        "mem_used": seq * 10, "net_rx_bytes": seq, "net_tx_bytes": seq, "delta_net_in": 0, "delta_net_out": 0,
        "delta_mem_used": 0, "window": 1, "window_cpu_avg": cpu, "window_cpu_max": cpu, "window_mem_avg": 30.0,
        "window_mem_max": 30.0
    });
    format!("{row}\n")
}

#[test]
fn a_number_counts_once_and_the_histogram_is_that_of_the_window() {
    let home = tempfile::tempdir().unwrap();
    let values = [5.0, 10.0, 10.5, 60.0, 99.0, 100.0, 250.0];
    let mut text: String = (1_u64..).zip(values).map(|(seq, cpu)| row(seq, cpu)).collect();
    // The same again, as when two files are joined.
    text.push_str(&row(7, 250.0));
    fs::write(home.path().join("t.jsonl"), &text).unwrap();
    let words = [&FILES[..], &HISTOGRAMS, &["--window", "5", "--no-sample"]].concat();
    let first = run(home.path(), &words);
    assert_eq!(first.code, 0, "{}", first.err);
    let metrics = fs::read_to_string(home.path().join("t.prom")).unwrap();
    let last = &values[2..];
    for bound in [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 100.0] {
        let below = last.iter().filter(|value| **value <= bound).count();
        let line = format!("\nresource_trend_cpu_pct_bucket{{le=\"{bound}\"}} {below}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert!(metrics.contains("\nresource_trend_cpu_pct_bucket{le=\"+Inf\"} 5\n"), "{metrics}");
    assert!(metrics.contains("\nresource_trend_cpu_pct_sum 519.5\n"), "{metrics}");
    assert!(metrics.contains("\nresource_trend_window_size 5\n"), "{metrics}");
    assert!(metrics.contains("resource_trend_cpu_pct{container=\"a\\\"b\"} 250\n"), "{metrics}");
    assert_eq!(run(home.path(), &words).code, 0);
    assert_eq!(fs::read_to_string(home.path().join("t.prom")).unwrap(), metrics, "the same rows, the same bytes");
    assert_eq!(fs::read_to_string(home.path().join("t.jsonl")).unwrap(), text, "nothing is added without a sample");
    if require("prometheus").is_some() {
        let (taken, said) = promtool(&["check", "metrics"], metrics.as_bytes());
        assert!(taken && said.trim().is_empty(), "{said}");
    }
}

#[test]
fn a_line_that_was_cut_off_is_mended_and_another_broken_one_is_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("t.jsonl");
    let words = [&FILES[..], &["--no-sample"]].concat();
    let whole = row(1, 1.0) + &row(2, 2.0);
    // Cut off at every byte of the second row.
    for cut in row(1, 1.0).len()..=whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        assert_eq!(run(home.path(), &words).code, 0, "cut at {cut}");
        let kept = if cut + 1 >= whole.len() { whole.clone() } else { row(1, 1.0) };
        assert_eq!(fs::read_to_string(&file).unwrap(), kept, "cut at {cut}");
        if cut == row(1, 1.0).len() + 3 {
            // The next number follows the last whole row.
            let idle = Busy::new("exec sleep 600");
            let mut sample = bare(home.path());
            sample.args(FILES).args(["--interval", "20ms", "--at", AT, "--pid", &idle.named("x")]);
            let said = said(sample.output().unwrap());
            assert_eq!(said.code, 0, "{}", said.err);
            assert_eq!(rows(home.path()).last().unwrap()["seq"], 2);
        }
    }
    fs::write(&file, format!("{}nothing\n{}", row(1, 1.0), row(2, 2.0))).unwrap();
    let broken = run(home.path(), &words);
    assert_eq!(broken.code, 3);
    assert!(broken.err.contains("t.jsonl:2: this is not a row"), "{}", broken.err);
}

#[test]
fn cgroups_are_measured_as_the_kernel_writes_them() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("cg/kubepods/pod1");
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("cpu.stat", "usage_usec 1000000\nuser_usec 1\n");
    write("memory.current", "26214400\n");
    write("memory.max", "104857600\n");
    write("cgroup.procs", &format!("{}\n", std::process::id()));
    let words = [&FILES[..], &["--interval", "20ms", "--cgroup-root", "cg"]].concat();
    let said = run(home.path(), &words);
    assert_eq!(said.code, 0, "{}", said.err);
    let rows = rows(home.path());
    assert_eq!((rows[0]["container"].as_str(), rows[0]["mem_pct"].as_f64()), (Some("kubepods/pod1"), Some(25.0)));
    assert_eq!(rows[0]["cpu_pct"], 0.0, "nothing was used between two readings of the same number");
    let none = run(home.path(), &[&FILES[..], &["--cgroup-root", "cg", "--cgroup", "kubepods"]].concat());
    assert_eq!(none.code, 2, "{}", none.err);
}

#[test]
fn the_cgroups_of_this_machine_are_measured_where_they_can_be_read() {
    let root = Path::new("/sys/fs/cgroup");
    let readable = root.join("cgroup.controllers").is_file()
        && fs::read_to_string(root.join("cgroup.controllers")).is_ok_and(|text| text.contains("memory"));
    if !readable {
        eprintln!("SKIPPED: {} is not cgroup version 2 with the memory controller", root.display());
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let said = run(home.path(), &[&FILES[..], &["--interval", "100ms"]].concat());
    if said.code == 2 && said.err.contains("no container is found") {
        return;
    }
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(rows(home.path()).iter().all(|row| row["mem_used"].as_u64().unwrap() > 0));
}

//! What /metrics promises, on the one recorder that this test process has.
#![allow(clippy::unwrap_used)]

use agentforge_metrics::{Handle, Metric, install};

const EARLY: Metric = Metric::histogram("test_early_seconds", &[1.0, 1200.0], &["tool"], "Early.");
const EARLY_BYTES: Metric = Metric::histogram("test_early_bytes", &[1024.0], &[], "Early bytes.");
const LATE: Metric = Metric::histogram("test_late_seconds", &[0.5, 7.0], &["tool"], "Late.");
const COUNT: Metric = Metric::counter("test_count_total", &["mission", "tool"], "Counts \"things\".");
const BARE: Metric = Metric::counter("test_bare_total", &[], "Bare.");
const CLOSED: Metric =
    Metric::counter("test_closed_total", &["channel", "reason"], "Closed.").of(&[&["sse", "ws"], &["slow"]]);
const HALF: Metric = Metric::counter("test_half_total", &["endpoint", "reason"], "Half.").of(&[&[], &["late", "lost"]]);
const CLOSED_SECONDS: Metric = Metric::histogram("test_closed_seconds", &[1.0], &["way"], "Closed.").of(&[&["in"]]);
const GONE: Metric = Metric::gauge("test_gone", &["service"], "Of things that go.");
const GAUGE: Metric = Metric::gauge("test_level", &[], "A level.");

/// Every test starts from the same first install, whichever runs first.
fn installed() -> Handle {
    install(&[&[EARLY, EARLY_BYTES], &[COUNT, BARE, GAUGE, CLOSED, HALF, CLOSED_SECONDS]])
}

fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|found| found == line)
}

#[test]
fn each_histogram_has_its_own_buckets() {
    let handle = installed();
    EARLY.observe(&["echo"], 700.0);
    EARLY_BYTES.observe(&[], 10.0);
    let text = handle.render();
    for line in [
        "test_early_seconds_bucket{tool=\"echo\",le=\"1\"} 0",
        "test_early_seconds_bucket{tool=\"echo\",le=\"1200\"} 1",
        "test_early_seconds_bucket{tool=\"echo\",le=\"+Inf\"} 1",
        "test_early_bytes_bucket{le=\"1024\"} 1",
        "# TYPE test_early_seconds histogram",
    ] {
        assert!(has_line(&text, line), "{line} in\n{text}");
    }
    assert_eq!(text.matches("test_early_bytes_bucket").count(), 2);
}

#[test]
fn a_later_install_adds_its_metrics_with_their_buckets_once() {
    installed();
    let handle = install(&[&[LATE, COUNT]]);
    install(&[&[LATE]]);
    LATE.observe(&["echo"], 6.0);
    handle.upkeep();
    let text = handle.render();
    assert!(has_line(&text, "test_late_seconds_bucket{tool=\"echo\",le=\"0.5\"} 0"), "{text}");
    assert!(has_line(&text, "test_late_seconds_bucket{tool=\"echo\",le=\"7\"} 1"), "{text}");
    assert!(has_line(&text, "# HELP test_late_seconds Late."), "{text}");
    for name in ["test_late_seconds", "test_count_total", "test_bare_total"] {
        assert!(text.matches(&format!("# TYPE {name} ")).count() <= 1, "{name} stands twice in\n{text}");
    }
}

#[test]
fn labels_stand_in_declared_order() {
    let handle = installed();
    COUNT.inc(&["staging", "echo"]);
    COUNT.add(&["staging", "echo"], 2);
    let text = handle.render();
    assert!(has_line(&text, "test_count_total{mission=\"staging\",tool=\"echo\"} 3"), "{text}");
    assert!(text.contains("# TYPE test_count_total counter"), "no suffix is doubled: {text}");
}

#[test]
fn counters_without_labels_show_before_the_first_event() {
    assert!(has_line(&installed().render(), "test_bare_total 0"));
}

#[test]
fn series_that_are_known_beforehand_show_before_the_first_event() {
    let handle = installed();
    let text = handle.render();
    for line in [
        "test_closed_total{channel=\"sse\",reason=\"slow\"} 0",
        "test_closed_total{channel=\"ws\",reason=\"slow\"} 0",
        "test_closed_seconds_count{way=\"in\"} 0",
    ] {
        assert!(has_line(&text, line), "{line} in\n{text}");
    }
    assert!(!text.contains("\ntest_half_total{"), "an endpoint has to be known first");
    HALF.begin(&["crm"]);
    let text = handle.render();
    for reason in ["late", "lost"] {
        assert!(has_line(&text, &format!("test_half_total{{endpoint=\"crm\",reason=\"{reason}\"}} 0")), "{text}");
    }
    HALF.inc(&["crm", "lost"]);
    HALF.begin(&["crm"]);
    assert!(
        has_line(&handle.render(), "test_half_total{endpoint=\"crm\",reason=\"lost\"} 1"),
        "what was counted stays"
    );
}

#[test]
fn gauges_move_both_ways_and_process_metrics_are_there() {
    let handle = installed();
    GAUGE.set(&[], 5.0);
    GAUGE.shift(&[], -2.0);
    let text = handle.render();
    assert!(has_line(&text, "test_level 3"), "{text}");
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(text.contains(&format!("\n{name} ")), "{name} in\n{text}");
    }
}

#[test]
fn families_are_sorted_and_whole() {
    let text = installed().render();
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert!(text.ends_with('\n'));
}

#[test]
fn a_withdrawn_gauge_is_off_the_page_until_it_is_set_again() {
    let handle = installed();
    let (a, b) = ("test_gone{service=\"a\"} 1", "test_gone{service=\"b\\\"\"} 2");
    GONE.set(&["a"], 1.0);
    GONE.set(&["b\""], 2.0);
    let text = handle.render();
    assert!(has_line(&text, a) && has_line(&text, b), "{text}");
    GONE.withdraw(&["b\""]);
    let text = handle.render();
    assert!(has_line(&text, a) && !text.contains("service=\"b"), "{text}");
    GONE.withdraw(&["a"]);
    assert!(!handle.render().contains("test_gone"), "a family without a series is not on the page");
    GONE.set(&["a"], 3.0);
    let text = handle.render();
    assert!(has_line(&text, "test_gone{service=\"a\"} 3") && !text.contains("service=\"b"), "{text}");
}

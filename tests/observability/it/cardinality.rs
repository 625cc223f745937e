//! The number of series does not follow what callers send.

use crate::stack::{DEADLINE, Options, Stack, all_but, series};
use agentforge_harness::{eventually, http_get, require};
use serde_json::json;

/// Most series that a page of the orchestrator may have, regardless of what was sent to it: a thousand combinations of
/// missions, queues and tools are distinguished.
const SERIES_MAX: usize = 15_000;

/// A number that looks random and is the same in every run.
fn mixed(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[tokio::test]
async fn random_names_labels_ids_and_paths_leave_the_series_bounded() {
    let Some(()) = require("nats-server") else { return };
    let soak = std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1");
    let jobs: u64 = if soak { 100_000 } else { 6_000 };
    let mut options = Options::default().set("orchestrator", "OUTBOX_MAX", "1000000").all("LOG_LEVEL", "warn");
    // No listener there: this tests what callers can do, not what the bus does.
    options = options.set("orchestrator", "NATS_URL", "nats://127.0.0.1:1");
    options.without = all_but(&["orchestrator"]);
    let stack = Stack::start(options).await;
    let base = stack.http("orchestrator");
    let mut halfway = 0;
    for batch in 0..(jobs / 500) {
        let mut submitted = Vec::new();
        for n in 0..500 {
            let r = mixed(batch * 500 + n);
            let job = json!({
                // As many as have places, and many more: the worst for combinations is what is in places.
                "tool": format!("tool-{:x}", r % 300), "queue": format!("q-{:x}", mixed(r) % 100),
                "args": {"n": r},
                "labels": {format!("l-{:x}", r % 5_000): format!("{r:x}")}, "idempotency_key": format!("{r:x}"),
            });
            submitted.push(job);
        }
        let (status, answer) = stack.post("/v1/jobs:batch", &[], &json!(submitted)).await;
        assert_eq!((status, &answer["accepted"]), (200, &500.into()), "{}", answer["items"][0]);
        for n in 0..10 {
            let r = mixed(batch * 10 + n);
            let _ = http_get(&format!("{base}/random/{r:x}/{:x}?q={r}", mixed(r)), &["X-Request-ID: a-b"]).await;
            let _ = http_get(&format!("{base}/v1/jobs/{r:x}"), &[]).await;
        }
        if batch == jobs / 1_000 {
            halfway = series(&stack.page("orchestrator").await).count();
        }
    }
    // Gauges that are counted from the database come a little later.
    eventually(DEADLINE, "the depths are counted", async || {
        let page = stack.page("orchestrator").await;
        if page.contains("agentforge_pending_jobs{") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let page = stack.page("orchestrator").await;
    let count = series(&page).count();
    println!("{count} series after {jobs} jobs, {halfway} halfway");
    assert!(count <= SERIES_MAX, "{count} series");
    for place in ["/random/", "agentforge_job_id", "request_id"] {
        assert!(!page.contains(place), "a path or an id is a label: {place}");
    }
    let largest = |name: &str| series(&page).filter(|(s, _)| s.starts_with(&format!("{name}{{"))).count();
    assert!(largest("agentforge_http_requests_total") < 200, "{}", largest("agentforge_http_requests_total"));
    assert!(largest("agentforge_pending_jobs") <= 33 * 65);
}

//! `job submit --batch` when the server pushes back, and when it is killed under the stream.

use super::support::{Dev, SOON, feed, has_service_binaries, kill9, pid};
use agentforge_harness::{eventually, require};
use std::collections::BTreeSet;

fn tempdir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("agentforge-batch-").tempdir().unwrap()
}

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("{{\"tool\":\"echo\",\"args\":{{\"n\":{n}}}}}\n")).collect()
}

/// The numbers of the stored jobs, and how many jobs there are.
fn stored(dev: &Dev) -> (BTreeSet<u64>, usize) {
    let all = dev.run(["job", "list", "--label", "kind=batch", "--all"]).ok();
    let jobs = all["jobs"].as_array().unwrap();
    (jobs.iter().map(|j| j["args"]["n"].as_u64().unwrap()).collect(), jobs.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_pushes_back_is_waited_for() {
    const COUNT: usize = 1_500;
    let Some(()) = require("nats-server") else { return };
    let home = tempdir();
    let dev = Dev::start_with(&home, &["--no-demo"], &[("OUTBOX_MAX", "200")]).await;
    let said = feed(dev.command().args(["job", "submit", "--batch", "-", "--label", "kind=batch"]), &lines(COUNT));
    let summary = said.last();
    assert_eq!((summary["accepted"].as_u64(), summary["refused"].as_u64()), (Some(COUNT as u64), Some(0)), "{summary}");
    let (numbers, jobs) = stored(&dev);
    assert_eq!((numbers.len(), jobs), (COUNT, COUNT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_orchestrator_costs_no_job_and_doubles_none() {
    const COUNT: usize = 8_000;
    let Some(()) = require("nats-server") else { return };
    if !has_service_binaries() {
        return;
    }
    let home = tempdir();
    let dev = Dev::start(&home, &["--processes"]).await;
    let victim = pid(&dev.ready["services"]["orchestrator"]["pid"]);
    let batch = std::thread::spawn({
        let mut command = dev.command();
        move || feed(command.args(["job", "submit", "--batch", "-", "--label", "kind=batch"]), &lines(COUNT))
    });
    // In the middle of it: some are stored, and the batch is still running.
    eventually(SOON, "the first jobs are stored", || {
        let said = dev.run(["job", "list", "--label", "kind=batch", "--limit", "1"]);
        let some = said.code == 0 && said.json()["jobs"].as_array().is_some_and(|jobs| !jobs.is_empty());
        async move { if some { Ok(()) } else { Err(said.err) } }
    })
    .await;
    assert!(!batch.is_finished(), "the batch was too fast for this test");
    kill9(victim);
    let said = batch.join().unwrap();
    let summary = said.last();
    assert_eq!((summary["accepted"].as_u64(), summary["refused"].as_u64()), (Some(COUNT as u64), Some(0)), "{summary}");
    let (numbers, jobs) = stored(&dev);
    assert_eq!((numbers.len(), jobs), (COUNT, COUNT), "each line is one job");
}

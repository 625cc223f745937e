//! Jobs of a queue are relayed in the order of their acceptance, also after an outage.

use crate::stack::{Options, Stack};
use agentforge_harness::require;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_accepted_while_nats_is_away_run_in_the_order_of_acceptance() {
    let Some(()) = require("nats-server") else { return };
    let options = Options::new().worker("WORKER_CONCURRENCY", "1").orchestrator("JOB_DEADLINE", "off");
    let mut stack = Stack::start(options).await;
    let api = stack.api();
    stack.nats.kill9();
    let mut ids = vec![];
    for n in 0..120 {
        ids.push(api.job("echo", json!({"n": n})).await);
        if n == 60 {
            // Some are held in memory, some lie in the database, some are accepted by a new process.
            stack.kill_orchestrator(0).await;
        }
    }
    stack.nats.restart().await;
    let mut begun = vec![];
    for id in &ids {
        let job = api.finished(id).await;
        assert_eq!(job["state"], "succeeded");
        begun.push(job["started_at"].as_str().unwrap().to_owned());
    }
    let first_out_of_order = begun.windows(2).position(|w| w[0] > w[1]);
    assert_eq!(first_out_of_order, None, "job {first_out_of_order:?} began after the one accepted behind it");
}

//! Nothing acknowledged is lost and one job commits one result, while everything is killed at random.

use crate::oracle::Submitted;
use crate::soak;
use crate::stack::{Options, Stack};
use agentforge_harness::require;
use rand::Rng;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_job_has_one_result_while_all_processes_are_killed() {
    let Some(()) = require("nats-server") else { return };
    let (jobs, kills) = if soak() { (10_000, 30) } else { (2_000, 9) };
    let options = Options::new()
        .orchestrator("RECONCILE_AFTER", "5s")
        .orchestrator("DUPLICATE_WINDOW", "4s")
        .orchestrator("ACK_WAIT", "3s")
        .orchestrator("JOB_DEADLINE", "off")
        .worker("ACK_WAIT", "3s")
        // Deaths by our hand are not the jobs' fault.
        .worker("WORKER_MAX_DELIVERIES", "1000")
        .worker("WORKER_CONCURRENCY", "16");
    let mut stack = Stack::start(options).await;
    let api = stack.api();

    let submitter = tokio::spawn({
        let api = api.clone();
        async move { Submitted::submit(&api, jobs, "chaos", "echo").await }
    });
    let begun = Instant::now();
    for n in 0..kills {
        let pause = Duration::from_millis(rand::rng().random_range(200..1_200));
        // The moment is the attack; what must hold is asserted below.
        tokio::time::sleep_until(Instant::now() + pause).await;
        match n % 3 {
            0 => stack.kill_worker(0).await,
            1 => stack.kill_orchestrator(0).await,
            _ => {
                stack.nats.kill9();
                stack.nats.restart().await;
            }
        }
    }
    let submitted = submitter.await.unwrap();
    assert_eq!(submitted.0.len(), jobs);
    submitted.all_final(&api, Duration::from_secs(if soak() { 600 } else { 150 })).await;
    submitted.judge(&stack).await;
    println!("{jobs} jobs, {kills} kills, {:?}", begun.elapsed());
}

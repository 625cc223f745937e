//! What a command starts ends with it, wherever it was sent, also when the worker is killed. The worker is the real program.

use crate::bench::{Bench, SOON, failure_of, output_of};
use crate::losses::process;
use crate::tools::{nothing_runs, running, tools_file};
use agentforge_harness::{NatsOptions, eventually, require};
use agentforge_proto::bus::{ErrorClass, Outcome};
use std::time::Duration;

/// Sends a process away in every way that a shell knows: to the background, to a session of its own, with a parent that
/// ends at once, with an environment that says nothing.
const SENDS_AWAY: &str = "sleep MARK & setsid sleep MARK & (setsid sh -c 'sleep MARK & sleep MARK &' &); \
                          env -i /usr/bin/setsid -f /bin/sleep MARK </dev/null >/dev/null 2>&1; ";

fn sends_away(mark: &str, then: &str) -> String {
    SENDS_AWAY.replace("MARK", mark) + then
}

async fn all_run(mark: &str) {
    let sleeping = format!("sleep\0{mark}");
    eventually(SOON, "the processes run", || async {
        match running(&sleeping) {
            5.. => Ok(()),
            n => Err(format!("{n} processes")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_sends_away_ends_with_its_success_its_timeout_and_its_cancel() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let (succeeds, hangs, waits) =
        (sends_away("7441", "sleep 0.5; echo 1"), sends_away("7442", "sleep 7442"), sends_away("7443", "sleep 7443"));
    let file = tools_file(&[
        ("succeeds", &succeeds, ""),
        ("hangs", &hangs, "timeout = \"1s\""),
        ("waits", &waits, ""),
        ("fails", "exit 3", ""),
        ("dies", "kill -SEGV $$", ""),
        ("piped", "kill -PIPE $$", ""),
        ("killed", "kill -KILL $$", ""),
        ("reads", "cat", "memory = \"64MiB\""),
        ("wants", "dd if=/dev/zero of=/dev/null bs=536870912 count=1 2>/dev/null && echo 1", "memory = \"64MiB\""),
    ]);
    // A program that is there at the start and gone afterwards.
    let absent = tempfile::tempdir().unwrap().keep().join("absent");
    std::fs::copy("/bin/true", &absent).unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    std::fs::write(file.path(), format!("{text}[[tool]]\nname = \"absent\"\nargv = [{absent:?}]\n")).unwrap();
    let mut worker = process(&bench, &[("WORKER_TOOLS_FILE", file.path().to_str().unwrap())]);
    worker.ready(SOON).await;
    std::fs::remove_file(&absent).unwrap();

    let job = bench.job("succeeds", "{}");
    bench.submit(&job).await;
    all_run("7441").await;
    assert_eq!(output_of(&bench.finished(job.job).await), "1");
    nothing_runs("7441").await;

    let job = bench.job("hangs", "{}");
    bench.submit(&job).await;
    all_run("7442").await;
    assert_eq!(failure_of(&bench.finished(job.job).await).class, ErrorClass::Timeout);
    nothing_runs("7442").await;

    let job = bench.job("waits", "{}");
    bench.submit(&job).await;
    all_run("7443").await;
    bench.received.lock().unwrap().stop.push(job.job);
    bench
        .nats
        .client()
        .publish(
            agentforge_jetstream::subjects::control_cancel(&bench.mission),
            serde_json::to_vec(&agentforge_proto::bus::CancelSignal { job: job.job, attempt: Some(job.attempt) })
                .unwrap()
                .into(),
        )
        .await
        .unwrap();
    assert!(matches!(bench.finished(job.job).await.outcome, Outcome::Cancelled));
    nothing_runs("7443").await;

    // The launcher ends as its command does, and passes everything on.
    for (tool, text) in [
        ("fails", "exit code 3"),
        ("dies", "SIGSEGV"),
        ("piped", "SIGPIPE"),
        ("killed", "SIGKILL"),
        ("absent", "did not start"),
        ("wants", "exit code"),
    ] {
        let failure = failure_of(&bench.run(&bench.job(tool, "{}")).await);
        assert!(failure.class == ErrorClass::Runtime && failure.message.contains(text), "{tool}: {failure:?}");
    }
    let args = format!(r#"{{"x":"{}"}}"#, "y".repeat(200_000));
    assert_eq!(output_of(&bench.run(&bench.job("reads", &args)).await), args);
    assert_eq!(worker.sigterm(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_started_ends_when_the_worker_is_killed() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::with(NatsOptions::default(), &[("ACK_WAIT", "60s")]).await;
    let script = sends_away("7451", "trap '' TERM; sleep 7451");
    let file = tools_file(&[("waits", &script, "")]);
    let mut worker = process(&bench, &[("WORKER_TOOLS_FILE", file.path().to_str().unwrap())]);
    worker.ready(SOON).await;
    bench.submit(&bench.job("waits", "{}")).await;
    all_run("7451").await;
    worker.kill9();
    nothing_runs("7451").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_drains_past_its_grace_leaves_nothing_running() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::with(NatsOptions::default(), &[("ACK_WAIT", "60s")]).await;
    let script = sends_away("7461", "trap '' TERM; sleep 7461");
    let file = tools_file(&[("waits", &script, "")]);
    let settings = [("WORKER_TOOLS_FILE", file.path().to_str().unwrap()), ("SHUTDOWN_GRACE", "8s")];
    let mut worker = process(&bench, &settings);
    worker.ready(SOON).await;
    bench.submit(&bench.job("waits", "{}")).await;
    all_run("7461").await;
    assert_eq!(worker.sigterm(Duration::from_secs(40)).await, 0);
    nothing_runs("7461").await;
}

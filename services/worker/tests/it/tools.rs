//! Commands as tools, seen from the bus: what they leave behind is nothing.

use crate::bench::{Bench, failure_of, output_of};
use agentforge_harness::{eventually, require};
use agentforge_proto::bus::{ErrorClass, Failure, JobMessage, Outcome};
use agentforge_proto::time::Micros;
use std::{fmt::Write, time::Duration};

/// A tools file with shell scripts as tools.
pub fn tools_file(tools: &[(&str, &str, &str)]) -> tempfile::NamedTempFile {
    let mut text = String::new();
    for (name, script, more) in tools {
        writeln!(
            text,
            "[[tool]]\nname = \"{name}\"\nargv = [\"/bin/sh\", \"-c\", '''{script}''']\nenv = [\"PATH\"]\n{more}"
        )
        .unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Processes whose command line has this text.
pub fn running(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|p| std::fs::read(p.path().join("cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains(mark)))
        .count()
}

/// Waits until neither `sleep` with this number of seconds nor a shell that calls it is running. Only the digits could be
/// in other command lines too.
pub async fn nothing_runs(seconds: &str) {
    eventually(Duration::from_secs(20), "nothing is left running", || async {
        match running(&format!("sleep\0{seconds}")) + running(&format!("sleep {seconds}")) {
            0 => Ok(()),
            n => Err(format!("{n} processes")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_job_tells_its_command_the_time_that_it_stands_for() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let file = tools_file(&[("when", "echo \"\\\"$AGENTFORGE_SCHEDULED_AT\\\"\"", "")]);
    let _worker = bench.worker(&[("WORKER_TOOLS_FILE", file.path().to_str().unwrap())]).await;
    let scheduled = JobMessage { scheduled_at: Some(Micros(1_790_000_000_000_000)), ..bench.job("when", "{}") };
    assert_eq!(output_of(&bench.run(&scheduled).await), r#""2026-09-21T14:13:20Z""#);
    assert_eq!(output_of(&bench.run(&bench.job("when", "{}")).await), r#""""#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_misbehave_fail_alone_and_leave_nothing_running() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let file = tools_file(&[
        ("cat", "cat", ""),
        ("forks", "sleep 7431 & sleep 7431", "timeout = \"300ms\""),
        ("leaves", "sleep 7432 & echo 1", ""),
        ("prints", "head -c 104857600 /dev/zero", "output_max = \"1MiB\""),
        ("dies", "echo dying >&2; kill -SEGV $$", ""),
        ("again", "exit 75", ""),
        ("hangs", "trap '' TERM; sleep 7433; sleep 7433", ""),
    ]);
    let worker = bench.worker(&[("WORKER_TOOLS_FILE", file.path().to_str().unwrap())]).await;
    let fails = async |tool: &str| -> Failure { failure_of(&bench.run(&bench.job(tool, "{}")).await) };

    assert_eq!(output_of(&bench.run(&bench.job("cat", r#"{"a":1}"#)).await), r#"{"a":1}"#);
    assert_eq!(fails("forks").await.class, ErrorClass::Timeout);
    nothing_runs("7431").await;
    assert_eq!(output_of(&bench.run(&bench.job("leaves", "{}")).await), "1");
    nothing_runs("7432").await;
    let printed = fails("prints").await;
    assert_eq!(printed.class, ErrorClass::Runtime);
    assert!(printed.message.contains("1048576 bytes") && printed.message.contains("output_max"), "{}", printed.message);
    let died = fails("dies").await;
    assert_eq!((died.class, died.log_tail.as_str()), (ErrorClass::Runtime, "dying\n"));
    assert!(died.message.contains("SIGSEGV"));
    assert_eq!(fails("again").await.class, ErrorClass::Transient);
    let mut hanging = bench.job("hangs", "{}");
    hanging.timeout_ms = 300;
    assert_eq!(failure_of(&bench.run(&hanging).await).class, ErrorClass::Timeout);
    nothing_runs("7433").await;
    bench.queue_is_empty().await;
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_stops_a_command_and_everything_it_started() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let file = tools_file(&[("forks", "sleep 7434 & sleep 7434", "")]);
    let worker = bench.worker(&[("WORKER_TOOLS_FILE", file.path().to_str().unwrap())]).await;
    let job = bench.job("forks", "{}");
    bench.submit(&job).await;
    bench.started(job.job).await;
    crate::lifecycle::cancel(&bench, job.job).await;
    assert!(matches!(bench.finished(job.job).await.outcome, Outcome::Cancelled));
    nothing_runs("7434").await;
    worker.drain().await;
}

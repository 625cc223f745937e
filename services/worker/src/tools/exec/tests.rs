//! Commands that behave badly in every way a command can, run for real.

use super::*;
use crate::tools::testing::{args, context};
use std::time::Instant;

fn sh(script: &str) -> Spec {
    Spec {
        program: "/bin/sh".into(),
        argv: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
        working_dir: None,
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        timeout: None,
        output_max_bytes: 1024 * 1024,
        files: Files::Any,
        network: true,
        user: None,
        limits: Limits::default(),
    }
}

async fn run(spec: Spec, input: &str) -> Result<String, ToolError> {
    Exec::new(spec, Starter::default()).run(&context(), &args(input)).await.map(|output| output.get().to_owned())
}

fn alive(pid: i32) -> bool {
    let pid = Pid::from_raw(pid).unwrap();
    // A zombie that has not been reaped yet no longer runs.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

use rustix::process::Pid;

async fn eventually_dead(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads a process id that a script writes, waiting for the file.
async fn pid_in(file: &std::path::Path) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Ok(pid) = std::fs::read_to_string(file).unwrap_or_default().trim().parse() {
            return pid;
        }
        assert!(Instant::now() < deadline, "no process id in {file:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn json_goes_in_and_json_comes_out() {
    assert_eq!(run(sh("cat"), r#"{"a":[1,2]}"#).await.unwrap(), r#"{"a":[1,2]}"#);
    assert_eq!(run(sh("true"), "{}").await.unwrap(), "null");
    let big = format!(r#"{{"x":"{}"}}"#, "y".repeat(900_000));
    assert_eq!(run(sh("cat"), &big).await.unwrap(), big);
    // A command need not read its input.
    assert_eq!(run(sh("echo 1"), &big).await.unwrap(), "1");
}

#[tokio::test]
async fn ends_become_classes() {
    let cases = [
        ("exit 3", ErrorClass::Runtime, "exit code 3"),
        ("exit 75", ErrorClass::Transient, "75"),
        ("kill -SEGV $$", ErrorClass::Runtime, "SIGSEGV"),
        ("kill -KILL $$", ErrorClass::Runtime, "SIGKILL"),
        ("echo hello", ErrorClass::Runtime, "not JSON"),
        ("printf '\\377'", ErrorClass::Runtime, "UTF-8"),
    ];
    for (script, class, text) in cases {
        let error = run(sh(script), "{}").await.unwrap_err();
        assert_eq!(error.class, class, "{script}");
        assert!(error.message.contains(text), "{script}: {error}");
    }
    let absent = Spec { program: "/does/not/exist".into(), ..sh("") };
    assert_eq!(run(absent, "{}").await.unwrap_err().class, ErrorClass::Runtime);
}

#[tokio::test]
async fn the_log_tail_is_the_end_of_standard_error() {
    let error = run(sh("seq 1 100000 >&2; exit 1"), "{}").await.unwrap_err();
    assert!(error.log_tail.ends_with("99999\n100000\n"));
    assert!(error.log_tail.len() <= 8 * 1024 && error.log_tail.len() > 8 * 1000);
}

#[tokio::test]
async fn the_environment_is_what_was_declared() {
    let output = run(
        Spec {
            env: vec![("A".into(), "1".into())],
            ..sh("/usr/bin/env | /usr/bin/sort | /usr/bin/tr '\\n' ' ' | /bin/sed 's/.*/\"&\"/'")
        },
        "{}",
    )
    .await
    .unwrap();
    assert!(output.contains("A=1") && output.contains("AGENTFORGE_JOB="), "{output}");
    assert!(!output.contains("HOME="), "{output}");
}

#[tokio::test]
async fn a_command_is_told_the_time_that_its_job_stands_for() {
    let tool = Exec::new(sh("echo \"\\\"$AGENTFORGE_SCHEDULED_AT\\\"\""), Starter::default());
    let turn = Some(agentforge_proto::time::Micros(1_790_000_000_000_000));
    let ctx = ToolContext { scheduled_at: turn, ..context() };
    assert_eq!(tool.run(&ctx, &args("{}")).await.unwrap().get(), "\"2026-09-21T14:13:20Z\"");
    // A job that no schedule made has none.
    assert_eq!(tool.run(&context(), &args("{}")).await.unwrap().get(), "\"\"");
}

#[tokio::test]
async fn a_printer_without_end_is_killed_at_the_cap() {
    let started = Instant::now();
    let error = run(sh("head -c 104857600 /dev/zero; sleep 600"), "{}").await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Runtime);
    assert!(error.message.contains("1048576") && error.message.contains("output_max"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_child_left_behind_with_the_output_open_neither_hangs_the_run_nor_survives_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let started = Instant::now();
    let output = run(sh(&format!("sleep 600 & echo $! > {}; echo '{{}}'", file.display())), "{}").await.unwrap();
    assert_eq!(output, "{}");
    assert!(started.elapsed() < Duration::from_secs(10));
    eventually_dead(pid_in(&file).await).await;
}

#[tokio::test]
async fn its_own_timeout_kills_the_whole_group_even_when_it_ignores_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script =
        format!("trap '' TERM; (trap '' TERM; echo waiting >&2; sleep 600) & echo $! > {}; wait; wait", file.display());
    let spec = Spec { timeout: Some(Duration::from_millis(300)), ..sh(&script) };
    let error = run(spec, "{}").await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Timeout);
    assert_eq!(error.log_tail, "waiting\n");
    eventually_dead(pid_in(&file).await).await;
}

#[tokio::test]
async fn a_stop_ends_the_group_and_lets_it_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let (ready, cleaned) = (dir.path().join("pid"), dir.path().join("cleaned"));
    let script = format!(
        "trap 'echo > {}; exit 0' TERM; echo $$ > {}; while :; do sleep 0.05; done",
        cleaned.display(),
        ready.display()
    );
    let ctx = context();
    let cancel = ctx.cancel.clone();
    let job = tokio::spawn(async move { Exec::new(sh(&script), Starter::default()).run(&ctx, &args("{}")).await });
    let pid = pid_in(&ready).await;
    cancel.cancel();
    assert!(job.await.unwrap().is_err());
    assert!(cleaned.exists());
    eventually_dead(pid).await;
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", file.display());
    let ctx = context();
    let job = tokio::spawn(async move { Exec::new(sh(&script), Starter::default()).run(&ctx, &args("{}")).await });
    let pid = pid_in(&file).await;
    job.abort();
    eventually_dead(pid).await;
}

#[tokio::test]
async fn memory_is_limited() {
    // dd asks for one buffer of 512 MiB.
    let script = "dd if=/dev/zero of=/dev/null bs=536870912 count=1 2>/dev/null && echo 1";
    let limited =
        Spec { limits: Limits { memory_max_bytes: Some(64 * 1024 * 1024), ..Limits::default() }, ..sh(script) };
    assert_eq!(run(limited, "{}").await.unwrap_err().class, ErrorClass::Runtime);
}

#[tokio::test]
async fn an_escaped_process_that_holds_the_output_does_not_hang_the_run() {
    let started = Instant::now();
    let output = run(sh("setsid sleep 3 & echo 7"), "{}").await.unwrap();
    assert_eq!(output, "7");
    assert!(started.elapsed() < Duration::from_secs(3));
}

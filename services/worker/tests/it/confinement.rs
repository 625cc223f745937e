//! Tools that attack their worker and its machine: they read nothing, leave nothing, and others are served meanwhile.
//! The worker is the real program with the configuration that ships.

use crate::bench::{Bench, SOON, failure_of, output_of};
use crate::losses::process;
use crate::tools::{nothing_runs, tools_file};
use agentforge_harness::{Proc, Right, eventually, require, require_right};
use agentforge_proto::bus::ErrorClass;
use serde_json::{Value, json};
use std::path::Path;

/// Prints, as JSON, what a tool can reach: of its launcher, its worker, another process and files.
const PEEK: &str = r#"
launcher=$PPID
read -r _ _ _ worker _ < /proc/$launcher/stat
can() { if "$@" >/dev/null 2>&1 </dev/null; then echo true; else echo false; fi; }
cat <<END
{
"launcher environment": $(can cat /proc/$launcher/environ),
"worker environment": $(can cat /proc/$worker/environ),
"worker memory": $(can dd if=/proc/$worker/mem bs=1 count=0),
"worker map": $(can head -c 1 /proc/$worker/maps),
"worker descriptors": $(can readlink /proc/$worker/fd/0),
"worker directory": $(can ls /proc/$worker/cwd/),
"worker program": $(can head -c 1 /proc/$worker/exe),
"another environment": $(can cat /proc/OTHER/environ),
"signal launcher": $(can kill -0 $launcher),
"signal worker": $(can kill -0 $worker),
"secret file": $(can cat SECRET),
"secret folder": $(can ls SECRETS),
"shadow": $(can cat /etc/shadow),
"root": $(can ls /root/),
"write outside": $(can sh -c ': > OUTSIDE/new'),
"write to etc": $(can mkdir /etc/agentforge-attack),
"remove secret": $(can rm SECRET),
"new privileges": $(if grep -q "NoNewPrivs:.*0" /proc/self/status; then echo true; else echo false; fi),
"own temporary file": $(can touch "$TMPDIR/x"),
"own environment": $(can cat /proc/self/environ),
"library": $(can head -c 1 /usr/bin/env),
"declared file": $(can cat READABLE),
"declared folder": $(can touch WRITABLE/new),
"write to declared file": $(can sh -c ': > READABLE')
}
END
"#;

/// What it may reach: all else is denied.
const ALLOWED: [&str; 5] = ["own temporary file", "own environment", "library", "declared file", "declared folder"];

fn reached(output: &str) -> Vec<String> {
    let found: serde_json::Map<String, Value> = serde_json::from_str(output).unwrap();
    found.into_iter().filter(|(_, can)| *can == json!(true)).map(|(what, _)| what).collect()
}

/// A worker with these tools and its own directory for temporary files.
async fn worker(bench: &Bench, tools: &tempfile::NamedTempFile, temp: &Path) -> Proc {
    let settings = [
        ("WORKER_TOOLS_FILE", tools.path().to_str().unwrap()),
        ("TMPDIR", temp.to_str().unwrap()),
        ("SECRET_OF_THE_WORKER", "s3cret"),
    ];
    let mut worker = process(bench, &settings);
    worker.ready(SOON).await;
    worker
}

/// What is below the worker's temporary directory: the directories of commands that run.
fn commands_in(temp: &Path) -> usize {
    let roots = std::fs::read_dir(temp).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir());
    roots.map(|root| std::fs::read_dir(root.path()).map_or(0, Iterator::count)).sum()
}

async fn nothing_is_left_in(temp: &Path) {
    eventually(SOON, "temporary directories of commands are removed", || async { commands_in(temp) == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_reads_and_reaches_nothing_but_what_it_was_given() {
    let (Some(()), Some(())) = (require("nats-server"), require_right(Right::Landlock)) else { return };
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (temp, secrets, writable) = (dir.path().join("temp"), dir.path().join("secrets"), dir.path().join("writable"));
    for folder in [&temp, &secrets, &writable] {
        std::fs::create_dir(folder).unwrap();
    }
    let (secret, readable) = (secrets.join("secret"), dir.path().join("readable"));
    std::fs::write(&secret, "s3cret").unwrap();
    std::fs::write(&readable, "public").unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let peek = PEEK
        .replace("OTHER", &std::process::id().to_string())
        .replace("SECRETS", &path(&secrets))
        .replace("SECRET", &path(&secret))
        .replace("READABLE", &path(&readable))
        .replace("WRITABLE", &path(&writable))
        .replace("OUTSIDE", &path(dir.path()));
    let opened = format!("read = [{readable:?}]\nwrite = [{writable:?}]");
    let reads = format!("cat {}", path(&secret));
    let tools =
        tools_file(&[("peek", &peek, &opened), ("unconfined", &peek, "files = \"any\""), ("denied", &reads, "")]);
    let mut worker = worker(&bench, &tools, &temp).await;
    let mut expected = ALLOWED.map(str::to_owned).to_vec();
    let mut found = reached(&output_of(&bench.run(&bench.job("peek", "{}")).await));
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(secret.exists() && writable.join("new").exists());
    let denied = failure_of(&bench.run(&bench.job("denied", "{}")).await);
    assert!(denied.message.contains("`read`") && denied.log_tail.contains("Permission denied"), "{denied:?}");
    // The check itself: a tool that asks for all files reaches what its user may.
    let found = reached(&output_of(&bench.run(&bench.job("unconfined", "{}")).await));
    for what in ["secret file", "signal worker", "write outside"] {
        assert!(found.iter().any(|f| f == what), "{what} is missing in {found:?}");
    }
    assert!(!found.iter().any(|f| f == "new privileges"), "{found:?}");
    let _ = std::fs::remove_dir("/etc/agentforge-attack");
    nothing_is_left_in(&temp).await;
    assert_eq!(worker.sigterm(SOON).await, 0);
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "the worker left something in its temporary directory");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_of_the_workers_own_user_cannot_read_it_even_without_file_rules() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let program = dir.path().join("agentforge-worker");
    std::fs::copy(env!("CARGO_BIN_EXE_agentforge-worker"), &program).unwrap();
    let peek = PEEK
        .replace("OTHER", "1")
        .replace("SECRETS", "/root")
        .replace("SECRET", "/etc/shadow")
        .replace("OUTSIDE", "/proc");
    let tools = tools_file(&[("unconfined", &peek, "files = \"any\"")]);
    std::fs::set_permissions(tools.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let ready = dir.path().join("ready");
    let builder = if is_root() {
        Proc::builder("/usr/bin/setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program.to_str().unwrap())
    } else {
        Proc::builder(&program)
    };
    let _worker = builder
        .envs([("NATS_URL", bench.url.as_str()), ("MISSION", "test"), ("HTTP_PORT", "0"), ("METRICS_PORT", "0")])
        .envs([("WORKER_TOOLS_FILE", tools.path().to_str().unwrap()), ("READY_FILE", ready.to_str().unwrap())])
        .envs([("TMPDIR", dir.path().to_str().unwrap()), ("SECRET_OF_THE_WORKER", "s3cret")])
        .start();
    let found = reached(&output_of(&bench.run(&bench.job("unconfined", "{}")).await));
    for what in ["worker environment", "worker memory", "worker map", "worker descriptors", "launcher environment"] {
        assert!(!found.iter().any(|f| f == what), "{what}: {found:?}");
    }
    // It runs as the worker's own user, which the kernel would let read all of these.
    assert!(found.iter().any(|f| f == "signal worker"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_that_fork_and_fill_without_end_are_killed_and_others_are_served() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let temp = dir.path().to_owned();
    // What forks share is counted once: 48 MiB for four processes.
    let shares = "perl -e '$x = \"a\" x (48 << 20); fork; fork; sleep 1' && sleep 0.5 && echo 1";
    let hold = "perl -e '$x = \"a\" x (48 << 20); sleep 7511' & ".repeat(4) + "wait";
    let tools = tools_file(&[
        ("bomb", "b() { sleep 7512 & b | b & wait; }; b", "processes = 64"),
        ("sessions", "while :; do setsid sh -c 'setsid sleep 7513 & sleep 7513' & done", "processes = 64"),
        ("fills", "cat /dev/zero > $TMPDIR/x", "temp_max = \"8MiB\""),
        ("many", "i=0; while :; do : > $TMPDIR/$i; i=$((i+1)); done", ""),
        ("deep", "exec perl -e 'chdir $ENV{TMPDIR}; for (1..1500) { mkdir q(ddd); chdir q(ddd) or die } sleep 60'", ""),
        ("hides", "exec 3> $TMPDIR/x; rm $TMPDIR/x; cat /dev/zero >&3", "temp_max = \"8MiB\""),
        ("files", "i=0; while :; do mkdir $TMPDIR/$i; i=$((i+1)); done", "temp_max = \"8MiB\""),
        ("long", "cat /dev/zero > $TMPDIR/x; exit 1", "file_max = \"1MiB\""),
        ("shares", shares, "memory = \"160MiB\""),
        ("holds", &hold, "memory = \"128MiB\""),
        ("burns", "while :; do :; done", "cpu = \"1s\""),
    ]);
    let mut worker = worker(&bench, &tools, &temp).await;
    for (tool, text) in [
        ("bomb", "`processes`"),
        ("sessions", "`processes`"),
        ("fills", "`temp_max`"),
        ("many", "10000 files"),
        ("deep", "too deep"),
        ("hides", "`temp_max`"),
        ("files", "`temp_max`"),
        ("long", "exit code 1"),
        ("holds", "`memory`"),
        ("burns", "SIGKILL"),
    ] {
        let job = bench.job(tool, "{}");
        bench.submit(&job).await;
        // Meanwhile another job of the same worker runs to its end.
        assert_eq!(output_of(&bench.run(&bench.job("echo", r#"{"a":1}"#)).await), r#"{"a":1}"#, "beside {tool}");
        let failure = failure_of(&bench.finished(job.job).await);
        assert!(failure.class == ErrorClass::Runtime && failure.message.contains(text), "{tool}: {failure:?}");
        nothing_is_left_in(&temp).await;
    }
    assert_eq!(output_of(&bench.run(&bench.job("shares", "{}")).await).trim(), "1");
    for mark in ["7511", "7512", "7513"] {
        nothing_runs(mark).await;
    }
    assert_eq!(worker.sigterm(SOON).await, 0);
}

/// Joins the process groups of the worker and of each launcher, in which its own launcher would kill it, and ends.
const JOINS: &str = r#"
read -r _ _ _ worker _ < /proc/$PPID/stat
for other in $worker $(cat /proc/$worker/task/*/children); do
    [ $other = $PPID ] || setsid perl -e 'setpgrp(0, $ARGV[0]); sleep 7541' $other &
    [ $other = $PPID ] || perl -e 'setpgrp(0, $ARGV[0]); sleep 7541' $other &
done
sleep 0.3; echo 1"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_cannot_have_others_killed_by_joining_their_groups() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let tools = tools_file(&[("joins", JOINS, ""), ("waits", "cat > $TMPDIR/x; sleep 3; cat $TMPDIR/x", "")]);
    let mut worker = worker(&bench, &tools, dir.path()).await;
    let victim = bench.job("waits", r#"{"a":1}"#);
    bench.submit(&victim).await;
    eventually(SOON, "the victim runs", || async { commands_in(dir.path()) == 1 }).await;
    for _ in 0..3 {
        assert_eq!(output_of(&bench.run(&bench.job("joins", "{}")).await).trim(), "1");
    }
    assert_eq!(output_of(&bench.finished(victim.job).await), r#"{"a":1}"#);
    nothing_runs("7541").await;
    nothing_is_left_in(dir.path()).await;
    assert_eq!(worker.sigterm(SOON).await, 0, "the worker was killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_can_be_without_a_network() {
    let (Some(()), Some(())) = (require("nats-server"), require_right(Right::Offline)) else { return };
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let port = bench.url.rsplit(':').next().unwrap();
    // Both ask the same server: the worker's own.
    let connect =
        format!("if bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null; then echo true; else echo false; fi");
    let tools = tools_file(&[("online", &connect, ""), ("offline", &connect, "network = false")]);
    let mut worker = worker(&bench, &tools, dir.path()).await;
    assert_eq!(output_of(&bench.run(&bench.job("online", "{}")).await).trim(), "true");
    assert_eq!(output_of(&bench.run(&bench.job("offline", "{}")).await).trim(), "false");
    assert_eq!(worker.sigterm(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_runs_as_the_user_that_is_declared() {
    let Some(()) = require("nats-server") else { return };
    let Some(()) = require_right(Right::Root) else { return };
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let script = "touch $TMPDIR/x && echo \"\\\"$(id -u) $(id -G) $(stat -c %u $TMPDIR)\\\"\"; sleep 7521 &";
    let tools = tools_file(&[("nobody", script, "user = \"nobody\"")]);
    let mut worker = worker(&bench, &tools, dir.path()).await;
    assert_eq!(output_of(&bench.run(&bench.job("nobody", "{}")).await).trim(), "\"65534 65534 65534\"");
    nothing_runs("7521").await;
    nothing_is_left_in(dir.path()).await;
    assert_eq!(worker.sigterm(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_leaves_no_temporary_files() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let tools = tools_file(&[("waits", "touch $TMPDIR/x; sleep 7531", "")]);
    let mut victim = worker(&bench, &tools, dir.path()).await;
    bench.submit(&bench.job("waits", "{}")).await;
    eventually(SOON, "the command runs", || async { commands_in(dir.path()) == 1 }).await;
    victim.kill9();
    nothing_runs("7531").await;
    nothing_is_left_in(dir.path()).await;
    // Its root goes with the next worker.
    let mut next = worker(&bench, &tools, dir.path()).await;
    let roots = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(roots, 1, "one root, that of the worker which runs");
    next.kill9();
}

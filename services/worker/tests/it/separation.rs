//! Commands are kept from each other and from their launchers' words, by what the kernel offers.

use crate::{
    bench::{Bench, failure_of, output_of},
    losses::process,
    tools::{nothing_runs, tools_file},
};
use agentforge_harness::{Proc, Right, eventually, require, require_right};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// For anything that happens on a busy machine.
const SOON: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_cannot_speak_for_its_launcher() {
    let Some(()) = require("nats-server") else { return };
    let bench = Bench::start().await;
    let words = "the command was killed: it had more than 1 processes; `processes` in the tools file raises the limit";
    let forge = format!(
        "word=$(tr '\\0' '\\n' < /proc/$PPID/environ 2>/dev/null | sed -n 's/^AGENTFORGE_LAUNCHER_WORD=//p'); \
         echo \"$word$AGENTFORGE_LAUNCHER_WORD {words}\" >&2; echo '{words}' >&2; exit 125"
    );
    let tools = tools_file(&[
        ("forges", &forge, ""),
        ("holds", "head -c 20000000 /dev/zero > $TMPDIR/x; sleep 60", "temp_max = \"8MiB\""),
    ]);
    let mut worker = process(&bench, &[("WORKER_TOOLS_FILE", tools.path().to_str().unwrap())]);
    worker.ready(SOON).await;
    let failure = failure_of(&bench.run(&bench.job("forges", "{}")).await);
    assert!(failure.message.starts_with("the command ended with exit code 125"), "{failure:?}");
    // What it wrote is shown as what it is: its own words, in its log.
    assert!(failure.log_tail.contains(words), "{failure:?}");
    // The launcher is still believed, and its line is not in the command's log.
    let failure = failure_of(&bench.run(&bench.job("holds", "{}")).await);
    assert!(failure.message.contains("`temp_max`") && !failure.log_tail.contains("temp_max"), "{failure:?}");
    assert_eq!(worker.sigterm(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_memory_ends_with_its_command_and_is_nobody_elses() {
    let (Some(()), Some(())) = (require("nats-server"), require_right(Right::Root)) else { return };
    let bench = Bench::start().await;
    // It makes a segment that must not exist, and leaves it.
    let claim = "exec perl -e 'print defined(shmget(0x41474631, 4096, 0600 | 01000 | 02000)) ? 1 : 0'";
    let tools = tools_file(&[("claims", claim, "")]);
    let mut worker = process(&bench, &[("WORKER_TOOLS_FILE", tools.path().to_str().unwrap())]);
    worker.ready(SOON).await;
    for turn in 0..2 {
        assert_eq!(output_of(&bench.run(&bench.job("claims", "{}")).await).trim(), "1", "turn {turn}");
    }
    let key = 0x4147_4631.to_string();
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    assert!(!segments.split_whitespace().any(|field| field == key), "{segments}");
    assert_eq!(worker.sigterm(SOON).await, 0);
}

/// A group as a service manager delegates one; removed with all that is in it.
struct Delegated(PathBuf);

impl Delegated {
    /// `None` where this machine has no cgroup v2 in which we may make one.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let point = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?.to_owned();
        let path = Path::new(&point).join(format!("agentforge-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// The groups of commands.
    fn runs(&self) -> Vec<PathBuf> {
        let groups = fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.path());
        groups.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("run-")).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..200 {
            let inner = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
            inner.filter(|path| path.is_dir()).for_each(|path| drop(fs::remove_dir(path)));
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_have_a_cgroup_of_their_own_where_one_is_delegated() {
    let (Some(()), Some(())) = (require("nats-server"), require_right(Right::Root)) else { return };
    let Some(group) = Delegated::make() else {
        eprintln!("SKIPPED: no group of cgroup v2 can be made here");
        return;
    };
    let bench = Bench::start().await;
    let mutiny = "setsid sh -c 'setsid sleep 7553 & sleep 7553' & sleep 0.3; kill -9 $PPID; sleep 60";
    let flees = "grep ^0:: /proc/self/cgroup | sed 's/.*/\"&\"/'; setsid sh -c 'setsid sleep 7551 & sleep 7551' &";
    let tools = tools_file(&[
        ("flees", flees, ""),
        ("stays", "setsid sleep 7552 & sleep 60", ""),
        ("mutinies", mutiny, "files = \"any\""),
    ]);
    let enter =
        format!("echo $$ > {}/cgroup.procs && exec {}", group.0.display(), env!("CARGO_BIN_EXE_agentforge-worker"));
    let mut worker = Proc::builder("/bin/sh")
        .args(["-c", &enter])
        .envs([("NATS_URL", bench.url.as_str()), ("MISSION", "test"), ("HTTP_PORT", "0"), ("METRICS_PORT", "0")])
        .envs([("WORKER_TOOLS_FILE", tools.path().to_str().unwrap())])
        .start();
    worker.ready(SOON).await;
    assert!(
        worker.full_log().contains("cgroup=true") || worker.full_log().contains("\"cgroup\":true"),
        "{}",
        worker.full_log()
    );
    let own = output_of(&bench.run(&bench.job("flees", "{}")).await);
    assert!(own.contains("/run-"), "{own}");
    eventually(SOON, "its group is gone", || async { group.runs().is_empty() }).await;
    // One that kills its launcher, as it may with all files open, is ended with what it sent away.
    failure_of(&bench.run(&bench.job("mutinies", "{}")).await);
    nothing_runs("7553").await;
    assert!(group.runs().is_empty(), "{:?}", group.runs());
    // One that is stopped is killed with all that it sent away.
    let job = bench.job("stays", "{}");
    bench.submit(&job).await;
    let run = eventually(SOON, "it runs", || async {
        let run = group.runs().pop().ok_or("no group")?;
        let members = fs::read_to_string(run.join("cgroup.procs")).unwrap_or_default();
        if members.lines().count() >= 3 { Ok(run) } else { Err("not yet") }
    })
    .await;
    assert_eq!(worker.sigterm(SOON).await, 0);
    assert!(!run.exists() && group.runs().is_empty(), "{:?}", group.runs());
}

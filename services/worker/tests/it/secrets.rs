//! Secrets of the worker: given as variables or files, and nowhere to be seen once it runs.

use crate::{bench::Bench, losses::process};
use agentforge_harness::{NatsOptions, Proc, Right, eventually, http_get, require, require_right};
use std::{os::unix::fs::PermissionsExt, time::Duration};

/// For anything that happens on a busy machine.
const SOON: Duration = Duration::from_secs(40);
const SECRET: &str = "s3cret-of-this-worker";

fn environment_of(worker: &Proc) -> String {
    let bytes = std::fs::read(format!("/proc/{}/environ", worker.pid())).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A server that lets in the worker with its password, and this test.
async fn bench() -> Bench {
    let users = format!("[{{user: w, password: \"{SECRET}\"}}, {{user: test, password: test}}]");
    let lines = format!("authorization {{ users: {users} }}\nno_auth_user: test");
    Bench::with(NatsOptions::default().extra(&lines), &[]).await
}

/// Starts a worker and waits until it has logged in.
async fn logged_in(bench: &Bench, password: (&str, &str)) -> Proc {
    let mut worker = process(bench, &[("NATS_USER", "w"), password]);
    let base = worker.ready(SOON).await["worker"]["http"].as_str().unwrap().to_owned();
    eventually(SOON, "the worker has logged in", || async {
        http_get(&format!("{base}/readyz"), &[]).await.is_ok_and(|(status, _)| status == 200)
    })
    .await;
    worker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_worker_has_no_secret_in_its_environment() {
    // No other user may read it at all.
    let (Some(()), Some(())) = (require("nats-server"), require_right(Right::Root)) else { return };
    let bench = bench().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
    for given in [("NATS_PASSWORD", SECRET), ("NATS_PASSWORD_FILE", file.to_str().unwrap())] {
        let mut worker = logged_in(&bench, given).await;
        let environment = environment_of(&worker);
        assert!(environment.contains("NATS_USER=w") && environment.contains("NATS_PASSWORD_FILE="), "{environment}");
        assert!(!environment.contains(SECRET), "{given:?}: {environment}");
        let log = worker.full_log();
        assert!(!log.contains(SECRET) && !log.contains("mode 0"), "{log}");
        assert_eq!(worker.sigterm(SOON).await, 0);
    }
    // A file that others may read is accepted, with a warning that says how to close it.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let worker = logged_in(&bench, ("NATS_PASSWORD_FILE", file.to_str().unwrap())).await;
    let log = worker.full_log();
    assert!(log.contains("mode 0644") && log.contains("chmod 0400"), "{log}");
}

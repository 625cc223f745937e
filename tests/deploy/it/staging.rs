//! The staging script as it runs against a cluster: what it applies and clears away, and that it fails when something
//! in the cluster does. No cluster runs here, so a substitute answers for it; folders are rendered by kubectl itself.

use crate::manifests::{containers, find, parse, root};
use agentforge_harness::{Proc, program, require};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Some rounds of two seconds, and kubectl's renderings, on a busy machine.
const RUN: Duration = Duration::from_secs(120);

/// What the cluster's part answers: `policy`, `metric`, `backlog` and `checks` are shell commands of their lines.
struct Cluster {
    policy: &'static str,
    metric: &'static str,
    backlog: &'static str,
    checks: &'static str,
}

/// Everything is well; the metric and the end of the checks come late, and `Complete` after another condition.
const WELL: Cluster = Cluster {
    policy: "true",
    metric: r#"[ "$asked" -gt 1 ] && echo '{"items":[{"value":"42"}]}'"#,
    backlog: "echo Complete",
    checks: r#"if [ "$asked" -gt 2 ]; then echo SuccessCriteriaMet Complete; else echo SuccessCriteriaMet; fi"#,
};

impl Cluster {
    /// Runs the script in the namespace `some-staging`; its exit code and output, and the substitute's folder.
    async fn run(&self) -> (i32, String, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let stand_in = format!(
            r#"#!/usr/bin/env bash
here={}
echo "$*" >>"$here/calls"
asked="$(grep -c -e --raw "$here/calls")"
case "$*" in
    kustomize*) exec {} "$@" ;;
    apply*) cat >>"$here/applied" && echo --- >>"$here/applied" ;;
    *"get networkpolicy allow-backlog-to-nats") {} ;;
    *"get configmap -o name") printf 'configmap/%s\n' kube-root-ca.crt agentforge-env-former0001 nats-config-former0002 ;;
    *--raw*) {} ;;
    *"get job nats-backlog"*) {} ;;
    *"get job end-to-end"*) {} ;;
esac
"#,
            dir.path().display(),
            program("kubectl").unwrap().display(),
            self.policy,
            self.metric,
            self.backlog,
            self.checks
        );
        let path = dir.path().join("kubectl");
        std::fs::write(&path, stand_in).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = std::env::var("PATH").unwrap();
        let mut script = Proc::builder(root().join("scripts/run_staging_end_to_end.sh"))
            .env("PATH", format!("{}:{found}", dir.path().display()))
            .env("NS", "some-staging")
            .env("BACKLOG_COUNT", "70")
            .start();
        let code = script.wait(RUN).await;
        (code, script.full_log(), dir)
    }
}

fn text(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_default()
}

#[tokio::test]
async fn staging_is_applied_cleared_and_checked() {
    let Some(()) = require("kubectl") else { return };
    let (code, log, dir) = WELL.run().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("a backlog of up to 42"), "{log}");
    let applied = parse(&text(dir.path(), "applied")).unwrap();
    assert!(
        applied.iter().all(|o| [None, Some("some-staging")].contains(&o.namespace())),
        "one namespace, the one named"
    );
    let job = find(&applied, "Job", "nats-backlog");
    let args = containers(job)[0]["args"].to_string();
    assert!(args.contains(r#""--runs","1","--count","70""#), "{args}");
    let calls = text(dir.path(), "calls");
    let deleted: Vec<_> = calls.lines().filter(|call| call.contains(" delete configmap")).collect();
    assert_eq!(
        deleted,
        ["-n some-staging delete configmap/agentforge-env-former0001 configmap/nats-config-former0002"],
        "the former ones, and nobody else's"
    );
    for call in calls.lines().filter(|call| !call.starts_with("kustomize") && !call.starts_with("apply")) {
        assert!(call.contains("some-staging"), "{call}");
    }
}

#[tokio::test]
async fn what_fails_in_staging_fails_the_script() {
    let Some(()) = require("kubectl") else { return };
    for (what, cluster) in [
        ("the policy allow-backlog-to-nats is missing", Cluster { policy: "exit 1", ..WELL }),
        ("KEDA's metric never showed the backlog", Cluster { metric: "exit 1", ..WELL }),
        ("the job nats-backlog did not complete", Cluster { backlog: "echo FailureTarget Failed", ..WELL }),
        ("the job end-to-end did not complete", Cluster { checks: "echo Failed", ..WELL }),
    ] {
        let (code, log, _dir) = cluster.run().await;
        assert!(code != 0 && log.contains(what), "{what}: {code}\n{log}");
    }
}

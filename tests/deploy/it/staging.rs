//! The staging script as it runs against a cluster: what it applies and clears away, and that it fails when something
//! in the cluster does. No cluster runs here, so a substitute answers for it; folders are rendered by kubectl itself.

use crate::manifests::{containers, find, parse, root};
use agentforge_harness::{Proc, program, require};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Some rounds of two seconds, and kubectl's renderings, on a busy machine.
const RUN: Duration = Duration::from_secs(120);

/// What the cluster's part answers: shell commands of their lines.
struct Cluster {
    /// Argo CD's application: its namespace, and its state.
    application: &'static str,
    rollout: &'static str,
    images: &'static str,
    policy: &'static str,
    metric: &'static str,
    backlog: &'static str,
    checks: &'static str,
}

/// Everything is well; the metric and the end of the checks come late, and `Complete` after another condition.
const WELL: Cluster = Cluster {
    application: "true",
    rollout: "true",
    images: r#"sed -n 's/^ *\(- \)\?image: //p' "$here/rendered" | grep -v /cli: | sort -u"#,
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
    kustomize*) {} "$@" | tee -a "$here/rendered" ;;
    *"get application.argoproj.io/agentforge-staging"*) {} ;;
    *"get statefulset,deployment -o name") printf '%s\n' statefulset.apps/nats deployment.apps/orchestrator ;;
    *"rollout status"*orchestrator) {} ;;
    *"get statefulset,deployment -o jsonpath"*) {} ;;
    *"get deployment,statefulset,replicaset"*) cat "$here/applied"; echo "name: agentforge-env-rollback01" ;;
    *"get pod -o"*) echo "orchestrator-x: ContainersNotReady ImagePullBackOff no such tag" ;;
    apply*) cat >>"$here/applied" && echo --- >>"$here/applied" ;;
    *"get networkpolicy allow-backlog-to-nats") {} ;;
    *"get configmap -o name") printf 'configmap/%s\n' kube-root-ca.crt agentforge-env-former0001 agentforge-env-rollback01 nats-config-former0002 ;;
    *--raw*) {} ;;
    *"get job nats-backlog"*) {} ;;
    *"get job end-to-end"*) {} ;;
esac
"#,
            dir.path().display(),
            program("kubectl").unwrap().display(),
            self.application,
            self.rollout,
            self.images,
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
            .env("REVISION", "1a2b3c")
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
        "the former ones, but for what a rollback needs, and nobody else's"
    );
    let place = |what: &str| calls.lines().position(|call| call.contains(what)).unwrap_or_else(|| panic!("no {what}"));
    let order =
        ["apply --server-side", "rollout status", "get networkpolicy", "get job end-to-end", " delete configmap"];
    assert!(order.map(place).is_sorted(), "{calls}");
    assert!(calls.contains("rollout status --timeout=600s statefulset.apps/nats"), "{calls}");
    for call in calls
        .lines()
        .filter(|call| !["kustomize", "apply", "-n argocd", "config"].iter().any(|start| call.starts_with(start)))
    {
        assert!(call.contains("some-staging"), "{call}");
    }
}

#[tokio::test]
async fn what_fails_in_staging_fails_the_script() {
    let Some(()) = require("kubectl") else { return };
    for (what, cluster) in [
        ("deployment.apps/orchestrator does not run as it was applied", Cluster { rollout: "exit 1", ..WELL }),
        ("ImagePullBackOff no such tag", Cluster { rollout: "exit 1", ..WELL }),
        ("other images run than the overlay names", Cluster { images: "echo agentforge/worker:of-yesterday", ..WELL }),
        ("the policy allow-backlog-to-nats is missing", Cluster { policy: "exit 1", ..WELL }),
        ("KEDA's metric never showed the backlog", Cluster { metric: "exit 1", ..WELL }),
        ("the job nats-backlog did not complete", Cluster { backlog: "echo FailureTarget Failed", ..WELL }),
        ("the job end-to-end did not complete", Cluster { checks: "echo Failed", ..WELL }),
    ] {
        let (code, log, dir) = cluster.run().await;
        assert!(code != 0 && log.contains(what), "{what}: {code}\n{log}");
        assert!(!text(dir.path(), "calls").contains(" delete configmap"), "{what}: what may still run was pruned");
    }
}

#[tokio::test]
async fn what_argo_has_is_not_applied_but_awaited() {
    let Some(()) = require("kubectl") else { return };
    // In sync with the commit before, then with this one.
    let application = r#"case "$*" in
        *destination*) echo some-staging ;;
        *) echo . >>"$here/looks"; if [ "$(wc -l <"$here/looks")" -gt 1 ]; then echo "Synced 1a2b3c Succeeded"; else echo "Synced 0f0f0f Succeeded"; fi ;;
    esac"#;
    let (code, log, dir) = Cluster { application, ..WELL }.run().await;
    assert_eq!(code, 0, "{log}");
    let applied = parse(&text(dir.path(), "applied")).unwrap();
    assert!(applied.iter().all(|o| o.kind() == "Job"), "only the checks: {log}");
    assert_eq!(text(dir.path(), "looks").lines().count(), 2);
    assert!(!text(dir.path(), "calls").contains(" delete configmap"), "Argo CD prunes by itself");
}

#!/usr/bin/env bash
# Checks staging as a whole: applies it (or waits for Argo CD to do so), waits until its newest pods run, checks that its
# policies exist, runs the checks inside, and checks that KEDA's metric followed the backlog. Exits with 0 only if all of
# this succeeds.
#
#   scripts/run_staging_end_to_end.sh            in the cluster of kubectl's context
#   scripts/run_staging_end_to_end.sh --local    the same checks against `agentforge dev`, started for them
#
# NS (agentforge-staging), BACKLOG_COUNT (3000), ROLLOUT_TIMEOUT (600 s), REVISION (where Argo CD applies: this commit).
# Exit code 64: a wrong argument; 69: no cluster, or no such namespace; 1: a check failed.
# Secrets are made beforehand, once (scripts/make-secrets).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
NS="${NS:-agentforge-staging}"
BACKLOG_COUNT="${BACKLOG_COUNT:-3000}"

. "$here/arguments.sh"
take_arguments "$@"
if [ "$LOCAL" = 1 ]; then
    . "$here/local-stack.sh"
    start_local_stack
    "$AGENTFORGE_BIN" verify --http "$ORCHESTRATOR_HTTP"
    "$AGENTFORGE_BIN" backlog measure --runs 1 --count "$BACKLOG_COUNT"
    exit 0
fi

check_cluster
overlay="$here/../overlays/staging"
# What a folder makes, in another namespace if NS names one.
render() { kubectl kustomize "$1" | sed "s/agentforge-staging/$NS/g"; }
. "$here/cluster-rollout.sh"

# Where Argo CD has the environment, only it applies: the checks wait for what it makes of this commit.
application=application.argoproj.io/agentforge-staging
place="$(kubectl -n argocd get "$application" --ignore-not-found -o 'jsonpath={.spec.destination.namespace}' 2>/dev/null || true)"
if [ "$place" = "$NS" ]; then
    revision="${REVISION:-$(git -C "$here" rev-parse HEAD)}"
    echo "Argo CD applies $NS: waiting until it is in sync with $revision"
    synced='{.status.sync.status} {.status.sync.revision} {.status.operationState.phase}'
    for tries in $(seq 1 300); do
        state="$(kubectl -n argocd get "$application" -o "jsonpath=$synced")"
        [ "$state" = "Synced $revision Succeeded" ] && break
        [ "$tries" -lt 300 ] || { echo "Argo CD is not in sync with $revision: $state" >&2; exit 1; }
        sleep 2
    done
else
    render "$overlay" | kubectl apply --server-side -f -
fi
await_rollouts
check_images "$(render "$overlay" | sed -n 's/^ *\(- \)\?image: //p' | sort -u)"

for policy in default-deny allow-dns services-to-nats allow-services-to-nats allow-backlog-to-nats allow-keda-to-nats; do
    kubectl -n "$NS" get networkpolicy "$policy" >/dev/null || { echo "the policy $policy is missing" >&2; exit 1; }
done

kubectl -n "$NS" delete job end-to-end nats-backlog --ignore-not-found
render "$overlay/jobs" | sed "s/\"3000\"/\"$BACKLOG_COUNT\"/; s/- \"3\"/- \"1\"/" | kubectl apply --server-side -f -

# What the scaler sees of the backlog, while the job runs.
metric="/apis/external.metrics.k8s.io/v1beta1/namespaces/$NS/s0-nats-jetstream-swarm_jobs?labelSelector=scaledobject.keda.sh%2Fname%3Dworker"
peak=0
ended() { kubectl -n "$NS" get job "$1" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}'; }
is_over() { case "$(ended "$1")" in *Complete* | *Failed*) ;; *) return 1 ;; esac; }
for _ in $(seq 1 2250); do
    # The metric does not exist before KEDA's first poll, nor while its source is unavailable.
    value="$(kubectl get --raw "$metric" 2>/dev/null | sed -n 's/.*"value":"\([0-9]*\).*/\1/p')" || value=
    [ "${value:-0}" -gt "$peak" ] && peak="$value"
    is_over nats-backlog && is_over end-to-end && break
    sleep 2
done
failed=0
for job in end-to-end nats-backlog; do
    kubectl -n "$NS" logs "job/$job" || true
    case "$(ended "$job")" in *Complete*) ;; *) echo "the job $job did not complete" >&2; failed=1 ;; esac
done
[ "$peak" -gt 0 ] || { echo "KEDA's metric never showed the backlog" >&2; failed=1; }
echo "the scaler saw a backlog of up to $peak"
# Last, when what runs now is known to work. Argo CD prunes by itself.
[ "$place" = "$NS" ] || [ "$failed" -ne 0 ] || prune_settings
exit "$failed"

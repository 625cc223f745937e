#!/usr/bin/env bash
# Whether an installation does its work: readiness, a job from end to end, workers, and on demand a backlog.
#
#   scripts/verify_staging.sh            in the cluster of kubectl's context, through a port-forward
#   scripts/verify_staging.sh --local    against `agentforge dev`, started for it
#
# Exit code 0: all checks passed; 1: one failed; 64: a wrong argument; 69: no cluster, no command or no token.
# NS (agentforge-staging), GENERATE_BACKLOG=1 (also drain BACKLOG_COUNT jobs, 500), AGENTFORGE_TOKEN.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

. "$here/local-stack.sh"
. "$here/arguments.sh"
take_arguments "$@"
if [ "$LOCAL" = 1 ]; then
    start_local_stack
else
    . "$here/cluster-stack.sh"
    . "$here/cluster-rollout.sh"
    NS="${NS:-agentforge-staging}"
    check_cluster
    command -v "${AGENTFORGE_BIN:-agentforge}" >/dev/null || {
        echo "there is no command agentforge on PATH: cargo install --path cli, or set AGENTFORGE_BIN" >&2
        exit 69
    }
    [ -n "${AGENTFORGE_TOKEN:-}" ] || { echo "AGENTFORGE_TOKEN is not set: make-secrets printed it" >&2; exit 69; }
    # Before the port-forward, which would lead to a former pod.
    await_rollouts
    start_cluster_stack
fi
backlog=()
[ "${GENERATE_BACKLOG:-0}" = 1 ] && backlog=(--backlog "${BACKLOG_COUNT:-500}")
"$AGENTFORGE_BIN" verify --http "$ORCHESTRATOR_HTTP" "${backlog[@]}"

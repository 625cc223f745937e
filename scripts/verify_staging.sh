#!/usr/bin/env bash
# Whether an installation does its work: readiness, a job from end to end, workers, and on demand a backlog.
#
#   scripts/verify_staging.sh            in the cluster of kubectl's context, through a port-forward
#   scripts/verify_staging.sh --local    against `agentforge dev`, started for it
#
# NS (agentforge-staging), GENERATE_BACKLOG=1 (also drain BACKLOG_COUNT jobs, 500), AGENTFORGE_TOKEN.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

. "$here/local-stack.sh"
if [ "${1:-}" = --local ]; then
    start_local_stack
else
    . "$here/cluster-stack.sh"
    . "$here/cluster-rollout.sh"
    NS="${NS:-agentforge-staging}"
    # Before the port-forward, which would lead to a former pod.
    await_rollouts
    start_cluster_stack
fi
backlog=()
[ "${GENERATE_BACKLOG:-0}" = 1 ] && backlog=(--backlog "${BACKLOG_COUNT:-500}")
"$AGENTFORGE_BIN" verify --http "$ORCHESTRATOR_HTTP" "${backlog[@]}"

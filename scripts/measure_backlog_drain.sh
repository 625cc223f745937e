#!/usr/bin/env bash
# How long a backlog takes to drain: P95 of the runs within 10 minutes, none above 20.
#
#   scripts/measure_backlog_drain.sh            in the cluster of kubectl's context, through a port-forward
#   scripts/measure_backlog_drain.sh --local    against `agentforge dev`, started for it
#
# RUNS (3), BACKLOG_COUNT (3000), NS (agentforge-staging), AGENTFORGE_TOKEN. Prints JSON. Exit code 0: passed,
# 1: P95 above the objective, 2: a run above the cap or without an end, 64: a wrong argument, 69: nothing was measured,
# because there is no cluster, no orchestrator or no token.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
. "$here/local-stack.sh"
. "$here/arguments.sh"
take_arguments "$@"
# A measurement that could not start is neither a pass nor a missed objective.
trap 'exit 69' ERR
if [ "$LOCAL" = 1 ]; then
    start_local_stack
else
    . "$here/cluster-stack.sh"
    NS="${NS:-agentforge-staging}"
    check_cluster
    start_cluster_stack
fi
commit="$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)"
trap - ERR
set +e
"$AGENTFORGE_BIN" backlog measure --json --runs "${RUNS:-3}" --count "${BACKLOG_COUNT:-3000}" --commit "$commit" \
    ${OBJECTIVE:+--objective "$OBJECTIVE"} ${CAP:+--cap "$CAP"}
exit $?

# shellcheck shell=bash
# Sourced by scripts that measure in a cluster: forwards the orchestrator's ports of namespace NS to this machine for
# as long as the script runs, and exports where it is.

start_cluster_stack() {
    AGENTFORGE_BIN="${AGENTFORGE_BIN:-agentforge}"
    NS="${NS:-agentforge-staging}"
    CLUSTER_STACK_DIR="$(mktemp -d)"
    kubectl -n "$NS" port-forward service/orchestrator :50051 :8080 >"$CLUSTER_STACK_DIR/log" 2>&1 &
    CLUSTER_STACK_PID=$!
    trap stop_cluster_stack EXIT
    local tries=0
    until [ "$(grep -c 'Forwarding from 127' "$CLUSTER_STACK_DIR/log")" -ge 2 ]; do
        if ! kill -0 "$CLUSTER_STACK_PID" 2>/dev/null || [ $((tries += 1)) -gt 150 ]; then
            cat "$CLUSTER_STACK_DIR/log" >&2
            echo "the orchestrator of $NS cannot be reached" >&2
            return 1
        fi
        sleep 0.2
    done
    port() { sed -n "s/^Forwarding from 127[^:]*:\([0-9]*\) -> $1\$/\1/p" "$CLUSTER_STACK_DIR/log" | head -1; }
    AGENTFORGE_SERVER="http://127.0.0.1:$(port 50051)"
    # shellcheck disable=SC2034  # read by the script that sources this
    ORCHESTRATOR_HTTP="http://127.0.0.1:$(port 8080)"
    export AGENTFORGE_SERVER
    unset AGENTFORGE_NATS_URL
}

stop_cluster_stack() {
    kill "$CLUSTER_STACK_PID" 2>/dev/null || true
    rm -rf "$CLUSTER_STACK_DIR"
}

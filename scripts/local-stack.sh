# shellcheck shell=bash
# Sourced by scripts that measure here instead of in a cluster: starts `agentforge dev` on free ports in a folder of
# its own, exports where it is, and stops it when the script ends.
#
# AGENTFORGE_BIN names the command; without it the development build is made and used.
# LOCAL_STACK_MODE is one more argument of `agentforge dev`, such as --edge.

start_local_stack() {
    local root
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    if [ -z "${AGENTFORGE_BIN:-}" ]; then
        (cd "$root" && cargo build --quiet)
        AGENTFORGE_BIN="$root/target/debug/agentforge"
    fi
    AGENTFORGE_NATS_SERVER="$("$root/scripts/nats-server" --path)"
    export AGENTFORGE_NATS_SERVER
    LOCAL_STACK_DIR="$(mktemp -d)"
    "$AGENTFORGE_BIN" dev ${LOCAL_STACK_MODE:+"$LOCAL_STACK_MODE"} --data-dir "$LOCAL_STACK_DIR/data" --port-base 0 --no-demo \
        --ready-file "$LOCAL_STACK_DIR/ready.json" >"$LOCAL_STACK_DIR/log" 2>&1 &
    LOCAL_STACK_PID=$!
    trap stop_local_stack EXIT
    local tries=0
    until [ -s "$LOCAL_STACK_DIR/ready.json" ]; do
        if ! kill -0 "$LOCAL_STACK_PID" 2>/dev/null || [ $((tries += 1)) -gt 600 ]; then
            cat "$LOCAL_STACK_DIR/log" >&2
            echo "agentforge dev did not come up" >&2
            return 1
        fi
        sleep 0.2
    done
    ready() { python3 -c 'import json,sys; v=json.load(open(sys.argv[1])); [v := v[k] for k in sys.argv[2:]]; print(v or "")' "$LOCAL_STACK_DIR/ready.json" "$@"; }
    AGENTFORGE_SERVER="$(ready services orchestrator grpc)"
    # shellcheck disable=SC2034  # read by the script that sources this
    ORCHESTRATOR_HTTP="$(ready services orchestrator http)"
    AGENTFORGE_NATS_URL="$(ready nats url)"
    export AGENTFORGE_SERVER AGENTFORGE_NATS_URL
}

stop_local_stack() {
    if kill -TERM "$LOCAL_STACK_PID" 2>/dev/null; then
        wait "$LOCAL_STACK_PID" || true
    fi
    rm -rf "$LOCAL_STACK_DIR"
}

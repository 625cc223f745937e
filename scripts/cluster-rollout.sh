# shellcheck shell=bash
# Sourced by scripts that check an environment in a cluster (namespace NS): waits until the pods that were asked for run,
# and no others, and says what the pods say where they do not.
#
# ROLLOUT_TIMEOUT (600 s, for all workloads together).

# All workloads of the namespace. A Deployment is Available with its former pods, too, so that is no answer.
await_rollouts() {
    local deadline=$((SECONDS + ${ROLLOUT_TIMEOUT:-600})) workload workloads left
    workloads="$(kubectl -n "$NS" get statefulset,deployment -o name)"
    [ -n "$workloads" ] || { echo "nothing runs in $NS" >&2; return 1; }
    for workload in $workloads; do
        left=$((deadline - SECONDS))
        [ "$left" -gt 0 ] || left=1
        kubectl -n "$NS" rollout status --timeout="${left}s" "$workload" && continue
        echo "$workload does not run as it was applied; its namespace says:" >&2
        tell_why >&2
        return 1
    done
}

# Pods that are not ready, with what they wait for, and the last warnings.
tell_why() {
    local reason='{range .status.conditions[?(@.status=="False")]}{" "}{.reason}{" "}{.message}{end}'
    local waiting='{range .status.containerStatuses[*]}{" "}{.state.waiting.reason}{" "}{.state.waiting.message}{end}'
    kubectl -n "$NS" get pod -o "jsonpath={range .items[*]}{.metadata.name}:$reason$waiting{\"\n\"}{end}" | grep -v ': *$' || true
    kubectl -n "$NS" get event --field-selector type=Warning --sort-by=.metadata.creationTimestamp \
        -o 'custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message' | tail -n 20
}

# The images of the namespace's workloads are these, one a line.
check_images() {
    local wanted="$1" found list='{range .items[*].spec.template.spec.containers[*]}{.image}{"\n"}{end}'
    found="$(kubectl -n "$NS" get statefulset,deployment -o "jsonpath=$list" | sort -u)"
    [ "$found" = "$wanted" ] && return
    echo "other images run than the overlay names (< overlay, > $NS):" >&2
    diff <(echo "$wanted") <(echo "$found") >&2 || true
    return 1
}

# Settings that nothing names any more. What a former ReplicaSet names stays: `kubectl rollout undo` needs it.
prune_settings() {
    local named kinds=deployment,statefulset,replicaset,controllerrevision,pod
    named="$(kubectl -n "$NS" get "$kinds" -o yaml | grep -oE '(agentforge-env|nats-config)-[a-z0-9]+' | sort -u | sed 's/^/configmap\//')"
    [ -n "$named" ] || { echo "nothing in $NS names its settings" >&2; return 1; }
    kubectl -n "$NS" get configmap -o name | grep -E '^configmap/(agentforge-env|nats-config)-' | grep -vxF "$named" |
        xargs -r kubectl -n "$NS" delete || true
}

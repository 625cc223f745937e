# shellcheck shell=bash
# Sourced by scripts that run in a cluster or here: reads their arguments, and says which cluster they are about to use.
#
#   take_arguments "$@"    sets LOCAL (1 with --local); prints the head of the script for --help; 64 for anything else
#   check_cluster          the context answers and has the namespace NS, or 69

# shellcheck disable=SC2034  # LOCAL is read by the script that sources this
take_arguments() {
    LOCAL=0
    while [ $# -gt 0 ]; do
        case "$1" in
            --local) LOCAL=1 ;;
            --help | -h)
                sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
                exit 0
                ;;
            *)
                echo "$(basename "$0"): $1 is not an argument; --help lists them" >&2
                exit 64
                ;;
        esac
        shift
    done
}

check_cluster() {
    command -v kubectl >/dev/null || { echo "there is no kubectl on PATH" >&2; exit 69; }
    local context
    context="$(kubectl config current-context 2>/dev/null || echo none)"
    echo "context $context, namespace $NS" >&2
    if [ "$NS" = agentforge ]; then
        echo "agentforge is production's namespace: this script puts load on it, or changes it, and is for others" >&2
        exit 64
    fi
    kubectl get namespace "$NS" -o name >/dev/null || {
        echo "the cluster of context $context does not answer, or has no namespace $NS" >&2
        exit 69
    }
}

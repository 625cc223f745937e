#!/usr/bin/env bash
# What all environments of a cluster share for monitoring, in the namespace `monitoring`: the Prometheus operator with
# Alertmanager and Grafana, our routes, rules and dashboards. With helm, from the project's own chart, at a pinned version.
#
#   scripts/install_monitoring.sh            install or upgrade, in the cluster of kubectl's context
#   scripts/install_monitoring.sh --local    the same rules and dashboards without a cluster: compose.yaml
#
# The Secret agentforge-receivers is made beforehand (docs/deploy/monitoring.md). CHART_VERSION names another version,
# VALUES one more file of values. Exit code 64: a wrong argument; 69: no cluster, no helm, or no Secret.
set -euo pipefail
. "$(dirname "$0")/arguments.sh"
take_arguments "$@"
cd "$(dirname "$0")/.."

if [ "$LOCAL" = 1 ]; then
    exec "${COMPOSE:-docker}" compose up --detach prometheus alertmanager grafana
fi
NS=monitoring
check_cluster
command -v helm >/dev/null || { echo "there is no helm on PATH" >&2; exit 69; }
kubectl -n "$NS" get secret agentforge-receivers -o name >/dev/null || {
    echo "Alertmanager would not start: make the Secret agentforge-receivers first (docs/deploy/monitoring.md)" >&2
    exit 69
}
# The label `release` of our monitors and rules is this release's name.
helm upgrade --install kube-prom kube-prometheus-stack --repo https://prometheus-community.github.io/helm-charts \
    --version "${CHART_VERSION:-79.5.0}" --namespace "$NS" --wait --timeout 10m \
    --values monitoring/kube-prometheus-stack/values.yaml --values monitoring/kube-prometheus-stack/alertmanager.yaml \
    ${VALUES:+--values "$VALUES"}
kubectl apply --server-side -k k8s/cluster/monitoring
kubectl -n "$NS" wait --for=condition=Available --timeout=5m deployment --all

#!/usr/bin/env bash
# What an environment's monitors, rules and dashboards need in a cluster: the Prometheus operator with Grafana, in
# the namespace `monitoring`, under the release name that our labels name. With helm, from the project's own charts.
#
#   scripts/install_monitoring.sh            install or upgrade
#   scripts/install_monitoring.sh --local    the same rules and dashboards without a cluster: compose.yaml
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --local ]; then
    exec "${COMPOSE:-docker}" compose up --detach prometheus alertmanager grafana
fi
helm repo add prometheus-community https://prometheus-community.github.io/helm-charts
helm upgrade --install kube-prom prometheus-community/kube-prometheus-stack \
    --namespace monitoring --create-namespace --wait --timeout 10m \
    --set prometheus.prometheusSpec.scrapeInterval=15s
kubectl -n monitoring wait --for=condition=Available --timeout=5m deployment --all

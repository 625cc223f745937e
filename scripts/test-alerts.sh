#!/usr/bin/env bash
# Breaks the real system on this machine and shows which alerts fire, which receivers are notified, and when they end.
#
# Everything is started for it, on free ports, and ended with it: NATS, PostgreSQL, the services, Prometheus with
# the shipped rules at a sixtieth of their times, Alertmanager with the shipped routes. Takes about three minutes.
set -euo pipefail
case "${1:-}" in
    --help | -h)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
esac
cd "$(dirname "$0")/.."

[ $# -eq 0 ] || { echo "usage: scripts/test-alerts.sh" >&2; exit 64; }

AGENTFORGE_NATS_SERVER="$(scripts/nats-server --path)"
export AGENTFORGE_NATS_SERVER CI=true
"${CARGO:-cargo}" build --workspace --bins
exec "${CARGO:-cargo}" test -p agentforge-observability --test it -- --nocapture --exact \
    live::failures_page_the_right_people_and_are_over_when_they_are_mended

#!/usr/bin/env bash
# Real clients, unmodified, against a cluster of real processes: confluent-kafka (librdkafka),
# kafka-python and kcat.
#
#   tests/clients/run.sh [unittest arguments…]
#
# Keeps the clients in target/test-clients; the cluster takes free ports and a temporary folder, and is
# stopped at the end. OTTLA_BOOTSTRAP names a running cluster to use instead.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
. scripts/requirements.sh
require cargo cc make kcat python3
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  require python3-venv
fi

venv="${CARGO_TARGET_DIR:-$root/target}/test-clients"
if ! cmp -s tests/clients/requirements.txt "$venv/installed.txt"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt
  cp tests/clients/requirements.txt "$venv/installed.txt"
fi

if [ -z "${OTTLA_BOOTSTRAP:-}" ]; then
  work=$(mktemp -d)
  finish() {
    status=$?
    if [ -d "$work/data/pids" ]; then
      [ $status -eq 0 ] || grep -hE ' (WARN|ERROR) ' "$work"/data/logs/*.log | tail -n 40 >&2 || true
      scripts/stop-cluster.sh --data "$work/data" || true
    fi
    rm -rf "$work"
    exit $status
  }
  trap finish EXIT
  # Sixteen ports outside the range that the kernel hands out.
  base_port=$((10000 + RANDOM % 600 * 16))
  OTTLA_BOOTSTRAP=$(scripts/start-cluster.sh --data "$work/data" --base-port $base_port --debug |
    sed -n 's/^bootstrap: //p')
fi
export OTTLA_BOOTSTRAP
PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m unittest discover --start-directory tests/clients --pattern 'test_*.py' "$@"

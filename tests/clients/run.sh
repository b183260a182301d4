#!/usr/bin/env bash
# Real clients, unmodified, against clusters of real processes: confluent-kafka (librdkafka),
# kafka-python, aiokafka, kcat, and Apache Kafka's own Java tools.
#
#   tests/clients/run.sh [--full] [unittest arguments…]
#   tests/clients/run.sh --script FILE [arguments…]     another Python file of this folder instead
#
# --full: every scenario of groups with every client, and 1,000 groups at once (tests/clients/group_scenarios.py), where
# the quick form takes some of them.
#
# Keeps the clients in target/test-clients; the cluster takes free ports and a temporary folder, and is
# stopped at the end. OTTLA_BOOTSTRAP names a running cluster to use instead, whose nodes have the settings
# GROUP_TIMES of tests/clients/own_cluster.py; OTTLA_BIN a binary that is
# there instead of a development build (suites that kill brokers start clusters of their own with it).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
. scripts/requirements.sh
require cargo cc make kcat java mvn
. tests/clients/venv.sh
clients=$venv
target="${CARGO_TARGET_DIR:-$root/target}"
export KAFKA_JARS="$clients/java"
if ! cmp -s tests/clients/java/pom.xml "$KAFKA_JARS/installed.xml"; then
  rm -rf "$KAFKA_JARS"
  again mvn --quiet --batch-mode --file tests/clients/java/pom.xml dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$KAFKA_JARS"
  cp tests/clients/java/pom.xml "$KAFKA_JARS/installed.xml"
fi

if [ -z "${OTTLA_BIN:-}" ]; then
  cargo build --quiet --package ottla --locked
  OTTLA_BIN="$target/debug/ottla"
fi
export OTTLA_BIN
export PYTHONDONTWRITEBYTECODE=1
if [ "${1:-}" = --full ]; then
  export CLIENTS_FULL=1
  shift
fi

if [ -z "${OTTLA_BOOTSTRAP:-}" ] && [ "${1:-}" != --script ]; then
  work=$(mktemp -d)
  finish() {
    status=$?
    if [ -d "$work/data/pids" ]; then
      [ $status -eq 0 ] || grep -hE ' (WARN|ERROR) ' "$work"/data/logs/*.log | tail -n 40 >&2 || true
      scripts/stop-cluster.sh --data "$work/data" || true
    fi
    rm -rf "$work" || true
    exit $status
  }
  trap finish EXIT
  mapfile -t options < <(PYTHONPATH=tests/clients "$clients/bin/python" -c '
from own_cluster import GROUP_TIMES, free_base_port
print("--base-port", free_base_port(), *(word for setting in GROUP_TIMES for word in ("--set", setting)), sep="\n")')
  OTTLA_BOOTSTRAP=$(scripts/start-cluster.sh --data "$work/data" "${options[@]}" |
    sed -n 's/^bootstrap: //p')
fi
export OTTLA_BOOTSTRAP="${OTTLA_BOOTSTRAP:-}"
if [ "${1:-}" = --script ]; then
  script=${2:?--script needs a file}
  shift 2
  "$clients/bin/python" "$script" "$@"
else
  "$clients/bin/python" -m unittest discover --start-directory tests/clients --pattern 'test_*.py' "$@"
fi

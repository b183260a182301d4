#!/usr/bin/env bash
# Ottla and Apache Kafka side by side: same machine, same client, in turns. docs/benchmarks.md says what
# is measured and what each figure means.
#
#   bench/compare.sh [--groups] [--quick] [--seconds 20] [--rounds 3] [--publish] [--only ottla|kafka]
#                    [--out DIR] [--base-port P]
#
# --groups compares groups, commits, coordinators' failovers and the log cleaner instead of plain records.
# Fetches and builds what it needs, needs nobody while it runs, and leaves only its results behind:
# DIR/results.json (every measurement, as it comes), DIR/tables.md and DIR/run.log (where it is). --publish
# writes the tables into docs/benchmarks.md and the measurements to docs/evidence/benchmarks.json (those of
# --groups to benchmarks-groups.json).
# --quick is one round with windows of 6 s: it shows that everything works, its figures mean little.
# OTTLA_BIN and LOAD_BIN name ready-made binaries; without them the release build is used.
# Exit codes: 0 everything was measured, 1 something failed (the rest is there), 2 it could not begin.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
. scripts/requirements.sh

target=${CARGO_TARGET_DIR:-$root/target}
out="$target/bench/$(date +%Y%m%d-%H%M%S)"
passed=()
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) passed+=(--seconds 6 --rounds 1); shift ;;
    --publish | --groups) passed+=("$1"); shift ;;
    --seconds | --rounds | --only | --base-port) passed+=("$1" "${2:?"$1 needs a value"}"); shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    *) sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
done

require python3 java mvn
if [ -z "${OTTLA_BIN:-}" ] || [ -z "${LOAD_BIN:-}" ]; then
  require cargo cc make
  echo "building the release binaries…" >&2
  cargo build --quiet --release --locked --package ottla --package load || exit 2
fi
ottla=${OTTLA_BIN:-$target/release/ottla}
load=${LOAD_BIN:-$target/release/load}

kafka_version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' bench/kafka/pom.xml)
kafka="$target/bench/kafka-$kafka_version"
if [ ! -e "$kafka/complete" ]; then
  echo "fetching Apache Kafka $kafka_version…" >&2
  mvn --batch-mode --quiet --file bench/kafka/pom.xml dependency:copy-dependencies \
    -DoutputDirectory="$kafka/libs" >&2 || exit 2
  touch "$kafka/complete"
fi

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD -- crates Cargo.lock 2>/dev/null || commit+=" with changes"
librdkafka=$(sed -n '/^name = "rdkafka-sys"/{n;s/^version = ".*+\(.*\)"/\1/p}' Cargo.lock)
versions=$(
  printf '{"ottla": "%s", "kafka": "%s", "java": "%s", "librdkafka": "%s"}' \
    "$("$ottla" --version | sed 's/^ottla //')" "$kafka_version" \
    "$(java -version 2>&1 | sed -n '2s/ *(.*//p')" "$librdkafka"
)

PYTHONPATH="$root/bench" PYTHONDONTWRITEBYTECODE=1 exec python3 -m compare --out "$out" --ottla "$ottla" \
  --load "$load" --kafka "$kafka/libs" --versions "$versions" --commit "$commit" ${passed[@]+"${passed[@]}"}

#!/usr/bin/env bash
# Installs what the tests need and runs them all: formatting, lints, documentation, every crate's
# tests, and the real clients and faults against real processes.
#
#   scripts/test.sh
#
# The property tests try the same histories each time, and coordinators die at the same moments, so that what passes here
# passes elsewhere. For others:
#
#   PROPTEST_RNG_SEED=$RANDOM PROPTEST_CASES=2000 cargo test -p storage
#   tests/clients/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/requirements.sh
require cargo cc make kcat kill

export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"
export CLIENTS_SEED="${CLIENTS_SEED:-1}"

# What may explain a failure later.
descriptors=$(ulimit -Hn)
if [ "$descriptors" != unlimited ] && [ "$descriptors" -lt 8192 ]; then
  echo "test: a process may open only $descriptors files here (ulimit -Hn): brokers of the tests may want up to 8192" >&2
fi
read -r first_port _ 2>/dev/null </proc/sys/net/ipv4/ip_local_port_range || first_port=32768
if [ "$first_port" -lt 32768 ]; then
  echo "test: this machine gives ports from $first_port on to whoever connects (net.ipv4.ip_local_port_range): a node of the" \
    "tests that starts again may find its own, below 32768, taken" >&2
fi

step() {
  echo
  echo "== $* ($(date +%T))"
}
step formatting
cargo fmt --all --check
step lints
cargo clippy --workspace --all-targets --locked -- -D warnings
step documentation
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
step "tests of every crate"
cargo test --workspace --locked
step "stock clients: confluent-kafka, kafka-python, aiokafka, kcat, Apache Kafka's Java tools"
tests/clients/run.sh
step "the main job, small"
scripts/demo.sh --test
step "faults, a short run"
scripts/chaos.sh --debug --seconds 40 --seed 1
step "faults: a loss that the checker must notice"
scripts/chaos.sh --debug --control
echo
echo "test: all passed"

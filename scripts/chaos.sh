#!/usr/bin/env bash
# Faults on a schedule against a real cluster, and a checker that judges what clients saw.
# docs/chaos.md says what is done and what is checked.
#
#   scripts/chaos.sh [--minutes N | --seconds N] [--seed S] [--runs R] [--dir DIR] [--debug]
#   scripts/chaos.sh --control [--debug]    a loss made on purpose, which the checker must notice
#
# The same seed is the same schedule of faults; without one it is the time. --runs repeats with the
# next seeds, and stops at the first that fails. OTTLA_BIN names another binary to test.
# Exit codes: 0 nothing found (--control: the loss was found), 1 something found, 2 the run did not work.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
. scripts/requirements.sh

seconds=60
seed=$(date +%s)
runs=1
control=false
profile=release
place=()
usage() {
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
number() {
  [[ $2 =~ ^[0-9]+$ ]] || { echo "chaos: $1 needs a number, not $2" >&2; exit 2; }
  echo "$2"
}
while [ $# -gt 0 ]; do
  case "$1" in
    --minutes) seconds=$(($(number "$1" "${2:-}") * 60)); shift 2 ;;
    --seconds) seconds=$(number "$1" "${2:-}"); shift 2 ;;
    --seed) seed=$(number "$1" "${2:-}"); shift 2 ;;
    --runs) runs=$(number "$1" "${2:-}"); shift 2 ;;
    --dir) place=(--dir "${2:?--dir needs a folder}"); shift 2 ;;
    --control) control=true; shift ;;
    --debug) profile=debug; shift ;;
    *) usage ;;
  esac
done
require cargo cc make

# Together, so that they share what both are built on.
build=(cargo build --quiet --locked --package ottla --package chaos)
[ "$profile" = release ] && build+=(--release)
"${build[@]}" >&2
target="${CARGO_TARGET_DIR:-$root/target}/$profile"
export OTTLA_BIN="${OTTLA_BIN:-$target/ottla}"

if $control; then
  exec "$target/chaos" control ${place[@]+"${place[@]}"}
fi
for ((run = 0; run < runs; run++)); do
  "$target/chaos" run --seed $((seed + run)) --seconds "$seconds" ${place[@]+"${place[@]}"}
done

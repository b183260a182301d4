#!/usr/bin/env bash
# What idle partitions cost a broker: descriptors and resident memory of every broker process, for a
# single broker and for three with replication factor 3.
#
#   bench/idle-partitions.sh [--partitions N] [--debug]
#
# Measured are an empty cluster, N partitions, N partitions that have received a record each, and both
# ways of starting again: after an orderly stop and after kill -9. At the end a broker is started with few
# descriptors, which it must warn of. OTTLA_BIN names another binary to measure. Exit code 1 where a broker
# is above the bound for 1,000 partitions: 4,000 descriptors and 300 MB.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
. scripts/requirements.sh

partitions=1000
extra=()
while [ $# -gt 0 ]; do
  case "$1" in
    --partitions) partitions=${2:?--partitions needs a number}; shift 2 ;;
    --debug) extra+=(--debug); shift ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
done
require kcat
bound_descriptors=$((4 * partitions))
bound_kb=$((300 * 1000 * 1000 / 1024))
base_port=$((10000 + RANDOM % 600 * 16))

work=$(mktemp -d)
data=""
stop() {
  [ -z "$data" ] || scripts/stop-cluster.sh --data "$data" >/dev/null 2>&1 || true
}
finish() {
  status=$?
  stop
  rm -rf "$work"
  exit $status
}
trap finish EXIT

above=0
# measure BROKERS WHAT: the largest of the brokers, after they have been left alone for a while.
measure() {
  local brokers=$1 what=$2 pid i descriptors=0 resident=0 peak=0 threads=0 now
  # Idle is what it is after the last burst has been digested: upkeep runs every few seconds.
  sleep 8
  for ((i = 1; i <= brokers; i++)); do
    pid=$(cat "$data/pids/broker-$i.pid")
    now=$(find "/proc/$pid/fd" -mindepth 1 | wc -l)
    [ "$now" -le $descriptors ] || descriptors=$now
    now=$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")
    [ "$now" -le $resident ] || resident=$now
    now=$(awk '/^VmHWM/ {print $2}' "/proc/$pid/status")
    [ "$now" -le $peak ] || peak=$now
    now=$(awk '/^Threads/ {print $2}' "/proc/$pid/status")
    [ "$now" -le $threads ] || threads=$now
  done
  printf '| %-43s | %11d | %13s | %9s | %7d |\n' "$what" $descriptors \
    "$((resident * 1024 / 1000000)) MB" "$((peak * 1024 / 1000000)) MB" $threads
  if [ $descriptors -gt $bound_descriptors ] || [ $resident -gt $bound_kb ]; then above=1; fi
}

start() {
  bootstrap=$(scripts/start-cluster.sh --data "$data" --base-port $base_port --brokers "$1" --controllers "$1" \
    ${extra[@]+"${extra[@]}"} 2>"$work/start" | sed -n 's/^bootstrap: //p') || {
    cat "$work/start" >&2
    exit 1
  }
}
# wait_in_sync REPLICAS
wait_in_sync() {
  local pattern="isrs: [0-9]+" i deadline=$((SECONDS + 120))
  for ((i = 1; i < $1; i++)); do pattern+=",[0-9]+"; done
  until [ "$(kcat -L -b "$bootstrap" -t idle 2>/dev/null | grep -cE "leader [0-9]+,.*$pattern")" -eq "$partitions" ]; do
    [ $SECONDS -lt $deadline ] || { echo "the partitions are not in sync after 120 s" >&2; exit 1; }
    sleep 0.5
  done
}

binary() {
  if [ -n "${OTTLA_BIN:-}" ]; then
    echo "$OTTLA_BIN"
  else
    case " ${extra[*]-} " in *" --debug "*) profile=debug ;; *) profile=release ;; esac
    echo "${CARGO_TARGET_DIR:-$root/target}/$profile/ottla"
  fi
}

series() {
  local nodes=$1 i
  data="$work/$nodes"
  echo
  echo "$partitions partitions, replication factor $nodes, $nodes broker(s); the largest broker counts"
  echo
  echo "| State                                       | Descriptors | Resident      | Peak      | Threads |"
  echo "|---|---|---|---|---|"
  start "$nodes"
  measure "$nodes" "no partition"
  "$(binary)" topics create idle --partitions "$partitions" --replication-factor "$nodes" \
    --bootstrap-server "$bootstrap" >/dev/null
  wait_in_sync "$nodes"
  measure "$nodes" "created"
  # Twelve times as many records as partitions, each to one at random: none is left out but by a
  # chance of one in a hundred.
  seq $((12 * partitions)) | kcat -P -b "$bootstrap" -t idle -X acks=all -X sticky.partitioning.linger.ms=0
  measure "$nodes" "after a dozen records to each"
  stop
  start "$nodes"
  wait_in_sync "$nodes"
  measure "$nodes" "started again after an orderly stop"
  for ((i = 1; i <= nodes; i++)); do kill -KILL "$(cat "$data/pids/broker-$i.pid")"; done
  start "$nodes"
  wait_in_sync "$nodes"
  measure "$nodes" "started again after kill -9 of every broker"
  reached=$(kcat -C -q -b "$bootstrap" -t idle -o beginning -e -f '%p\n' | sort -u | wc -l)
  measure "$nodes" "after a consumer has read them all"
  stop
  echo
  echo "$reached of $partitions partitions hold records"
}
series 1
series 3

echo
echo "A broker that may open 1,024 descriptors says:"
(
  ulimit -n 1024
  data="$work/1"
  start 1
)
data="$work/1"
grep -h WARN "$data/logs/broker-1.log" | grep -i descriptor | tail -n 1 | sed 's/\x1b\[[0-9;]*m//g'
stop
if [ $above -ne 0 ]; then
  echo "above the bound of $bound_descriptors descriptors and 300 MB" >&2
  exit 1
fi

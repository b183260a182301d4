#!/usr/bin/env bash
# Stops a cluster that scripts/start-cluster.sh started: brokers first (they move their leaderships
# away), then controllers. What does not end within its bound is ended at once.
#
#   scripts/stop-cluster.sh [--data DIR]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
data="$root/data"
while [ $# -gt 0 ]; do
  case "$1" in
    --data) data=${2:?--data needs a folder}; shift 2 ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
done
[ -d "$data/pids" ] || { echo "stop-cluster: no cluster in $data" >&2; exit 1; }
data=$(cd "$data" && pwd)

# The pid of a node, where that process is still the node. It may end before it is used.
pid_of() {
  local name=$1 pid
  pid=$(cat "$data/pids/$name.pid" 2>/dev/null) || return 1
  [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "$data/config/$name.properties" || return 1
  echo "$pid"
}

stop_all() {
  local kind=$1 bound=$2 file name pid deadline
  for file in "$data/pids/$kind"-*.pid; do
    [ -e "$file" ] || continue
    name=$(basename "$file" .pid)
    if pid=$(pid_of "$name"); then kill -TERM "$pid" 2>/dev/null || true; fi
  done
  deadline=$((SECONDS + bound))
  for file in "$data/pids/$kind"-*.pid; do
    [ -e "$file" ] || continue
    name=$(basename "$file" .pid)
    while pid=$(pid_of "$name"); do
      if [ $SECONDS -ge $deadline ]; then
        echo "stop-cluster: $name did not end within ${bound}s; ending it at once" >&2
        kill -KILL "$pid" 2>/dev/null || true
        break
      fi
      sleep 0.05
    done
    rm -f "$file"
  done
}
stop_all broker 30
stop_all controller 15
echo "stopped the cluster in $data" >&2

#!/usr/bin/env bash
# Starts a local Ottla cluster of separate processes and waits until every node is ready.
#
#   scripts/start-cluster.sh [--brokers N] [--controllers N] [--disks N] [--data DIR] [--base-port P]
#                            [--debug] [--set KEY=VALUE]…
#
# Run again on the same DIR it brings the same cluster back: data, ids and ports are kept, and only
# nodes that do not run are started. --disks gives every broker so many log directories. --debug uses the
# development build. --set is passed to every node.
# The last line on standard output is `bootstrap: host:port,…`; everything else goes to standard error.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
brokers=3
controllers=3
disks=1
data="$root/data"
base_port=9092
profile=release
settings=()

usage() {
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
fail() {
  echo "start-cluster: $*" >&2
  exit 1
}
while [ $# -gt 0 ]; do
  case "$1" in
    --brokers) brokers=${2:?--brokers needs a number}; shift 2 ;;
    --controllers) controllers=${2:?--controllers needs a number}; shift 2 ;;
    --disks) disks=${2:?--disks needs a number}; shift 2 ;;
    --data) data=${2:?--data needs a folder}; shift 2 ;;
    --base-port) base_port=${2:?--base-port needs a port}; shift 2 ;;
    --set) settings+=(--set "${2:?--set needs key=value}"); shift 2 ;;
    --debug) profile=debug; shift ;;
    *) usage ;;
  esac
done
for number in "$brokers" "$controllers" "$disks" "$base_port"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || fail "$number is not a positive number"
done

if [ -n "${OTTLA_BIN:-}" ]; then
  ottla=$OTTLA_BIN
else
  build=(cargo build --quiet --manifest-path "$root/Cargo.toml" --package ottla --locked)
  [ "$profile" = release ] && build+=(--release)
  echo "building ottla ($profile)…" >&2
  "${build[@]}" >&2
  target=${CARGO_TARGET_DIR:-$root/target}
  ottla="$target/$profile/ottla"
fi

mkdir -p "$data"/{config,logs,pids}
data=$(cd "$data" && pwd)

# The cluster's shape is fixed at its birth.
shape="brokers=$brokers controllers=$controllers base_port=$base_port"
[ "$disks" -eq 1 ] || shape+=" disks=$disks"
if [ -f "$data/cluster-shape" ]; then
  known=$(cat "$data/cluster-shape")
  [ "$known" = "$shape" ] || fail "$data holds a cluster with $known; asked for was $shape"
else
  echo "$shape" >"$data/cluster-shape"
fi
[ -f "$data/cluster-id" ] || "$ottla" random-cluster-id >"$data/cluster-id"
cluster_id=$(cat "$data/cluster-id")

voters=""
for ((i = 1; i <= controllers; i++)); do
  voters+="${voters:+,}$((100 + i))@127.0.0.1:$((base_port + 10100 + i - 1))"
done

# The log directories of a broker, for log.dirs.
log_dirs() {
  local name=$1 dirs="$data/$1" disk
  if [ "$disks" -gt 1 ]; then
    dirs="$data/$name/disk-1"
    for ((disk = 2; disk <= disks; disk++)); do dirs+=",$data/$name/disk-$disk"; done
  fi
  echo "$dirs"
}

# write_config NAME NODE_ID ROLE INTERNAL_PORT [CLIENT_PORT]
write_config() {
  local name=$1 node_id=$2 role=$3 internal=$4 client=${5:-}
  {
    echo "process.roles=$role"
    echo "node.id=$node_id"
    echo "controller.quorum.voters=$voters"
    if [ "$role" = controller ]; then
      echo "log.dirs=$data/$name"
      echo "controller.listener.names=CONTROLLER"
      echo "listeners=CONTROLLER://127.0.0.1:$internal"
    else
      echo "log.dirs=$(log_dirs "$name")"
      echo "listeners=PLAINTEXT://127.0.0.1:$client,INTERNAL://127.0.0.1:$internal"
      echo "advertised.listeners=PLAINTEXT://127.0.0.1:$client,INTERNAL://127.0.0.1:$internal"
      echo "inter.broker.listener.name=INTERNAL"
    fi
  } >"$data/config/$name.properties"
}

is_running() {
  local pid_file="$data/pids/$1.pid" pid
  [ -f "$pid_file" ] || return 1
  pid=$(cat "$pid_file")
  # A pid may have been given to another program since.
  [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "$data/config/$1.properties"
}

started=()
start() {
  local name=$1
  is_running "$name" && return
  nohup "$ottla" server --config "$data/config/$name.properties" ${settings[@]+"${settings[@]}"} \
    >>"$data/logs/$name.log" 2>&1 </dev/null &
  echo $! >"$data/pids/$name.pid"
  started+=("$name")
}

# Seconds until a node counts as one that never gets ready. Generous: the machine may have more to do than this.
patience=180
wait_ready() {
  local name=$1 port=$2 deadline=$((SECONDS + patience))
  until "$ottla" healthcheck --address "127.0.0.1:$port" >/dev/null 2>&1; do
    if ! is_running "$name"; then
      tail -n 20 "$data/logs/$name.log" >&2
      fail "$name ended; its log is $data/logs/$name.log"
    fi
    if [ $SECONDS -ge $deadline ]; then
      tail -n 20 "$data/logs/$name.log" >&2
      fail "$name is not ready after $patience s; its log is $data/logs/$name.log"
    fi
    sleep 0.05
  done
}

# Formats the controllers of a new cluster. One whose folder vanished later stays unformatted, and refuses to
# start: it must not come back blank and vote.
seats=()
for ((i = 1; i <= controllers; i++)); do seats+=("$((100 + i))=$data/controller-$((100 + i))"); done
"$ottla" format-quorum --cluster-id "$cluster_id" "${seats[@]}" >&2
for ((i = 1; i <= controllers; i++)); do
  name="controller-$((100 + i))"
  write_config "$name" $((100 + i)) controller $((base_port + 10100 + i - 1))
  start "$name"
done
bootstrap=""
for ((i = 1; i <= brokers; i++)); do
  write_config "broker-$i" "$i" broker $((base_port + 10000 + i - 1)) $((base_port + i - 1))
  start "broker-$i"
  bootstrap+="${bootstrap:+,}127.0.0.1:$((base_port + i - 1))"
done
for ((i = 1; i <= controllers; i++)); do
  wait_ready "controller-$((100 + i))" $((base_port + 10100 + i - 1))
done
for ((i = 1; i <= brokers; i++)); do
  wait_ready "broker-$i" $((base_port + i - 1))
done
echo "cluster $cluster_id: $controllers controllers, $brokers brokers, ${#started[@]} processes started, data in $data" >&2
echo "bootstrap: $bootstrap"

#!/usr/bin/env bash
# The main job, shown: starts a replicated cluster, streams a real file through it with acks=all from a
# stock Kafka client (kcat), kills the leader with -9 half-way, reads everything back and compares.
#
#   scripts/demo.sh [--data DIR] [--base-port P] [--debug] [--test]
#
# The file is the Rust source code of the libraries that Ottla is built from, 120,000 lines of it: real
# text that every machine which built Ottla has. The cluster is left running. --test takes free ports,
# the development build and a temporary folder, and stops the cluster at the end.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
. scripts/requirements.sh

data="$root/data"
base_port=9092
test_run=false
extra=()
while [ $# -gt 0 ]; do
  case "$1" in
    --data) data=${2:?--data needs a folder}; shift 2 ;;
    --base-port) base_port=${2:?--base-port needs a port}; shift 2 ;;
    --debug) extra+=(--debug); shift ;;
    --test) test_run=true; shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
done
require cargo cc make kcat

work=$(mktemp -d)
if $test_run; then
  data="$work/data"
  extra+=(--debug)
  # All three port ranges stay below the one that Linux hands out to clients (32768 and up).
  is_taken() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
  are_free() {
    local port
    for port in {0..2} {10000..10002} {10100..10102}; do ! is_taken $(($1 + port)) || return 1; done
  }
  until base_port=$((20000 + RANDOM % 160 * 16)) && are_free $base_port; do :; done
fi
finish() {
  status=$?
  if $test_run && [ -d "$data/pids" ]; then
    [ $status -eq 0 ] || tail -n 30 "$data"/logs/*.log >&2 || true
    scripts/stop-cluster.sh --data "$data" || true
  fi
  rm -rf "$work" || true
  exit $status
}
trap finish EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
now_ms() { date +%s%3N; }

lines=120000
partitions=3
# Seconds until something counts as never coming. Generous: the machine may have more to do than this.
patience=180
topic="demo-$(date +%s)"

say "1. A cluster: three controllers, three brokers"
began=$(now_ms)
bootstrap=$(scripts/start-cluster.sh --data "$data" --base-port "$base_port" ${extra[@]+"${extra[@]}"} |
  sed -n 's/^bootstrap: //p')
echo "ready at $bootstrap, $(($(now_ms) - began)) ms after the command (with the build, where there was one)"
data=$(cd "$data" && pwd)
if [ -n "${OTTLA_BIN:-}" ]; then
  ottla=$OTTLA_BIN
else
  case " ${extra[*]-} " in *" --debug "*) profile=debug ;; *) profile=release ;; esac
  ottla="${CARGO_TARGET_DIR:-$root/target}/$profile/ottla"
fi

say "2. A topic with replication factor 3"
create=("$ottla" topics create "$topic" --partitions $partitions --replication-factor 3 --bootstrap-server "$bootstrap")
# A broker that the machine gives no time counts as dead until it has some again.
deadline=$((SECONDS + patience))
until said=$("${create[@]}" 2>&1); do
  case "$said" in *TOPIC_ALREADY_EXISTS*) break ;; esac
  [ $SECONDS -lt $deadline ] || { echo "$said" >&2; exit 1; }
  sleep 0.1
done
echo "$said"
describe() { kcat -L -b "$bootstrap" -t "$topic" 2>/dev/null; }
leader_of() { describe | sed -n "s/^ *partition $1, leader \([0-9-]*\),.*/\1/p"; }
describe | sed -n '/partition /p'

say "3. A real file: $lines lines of the source code Ottla is built from"
# No pipe into head: a writer that is cut off would count as a failure.
sources=$(cargo metadata --format-version 1 --locked --manifest-path "$root/Cargo.toml" |
  grep -o '"src_path":"[^"]*/registry/[^"]*/src/lib.rs"' | cut -d'"' -f4 | sort -u)
while read -r source; do
  find "$(dirname "$source")" -name '*.rs' -print0 | sort -z | xargs -0 cat
  [ "$(stat -c %s "$work/file" 2>/dev/null || echo 0)" -lt 40000000 ] || break
done <<<"$sources" >"$work/file"
# Empty lines would be records without a value; every line gets its number.
awk -v lines="$lines" 'length($0) > 0 && length($0) < 2000 { printf "%06d %s\n", ++n, $0 } n == lines { exit }' \
  "$work/file" >"$work/lines"
count=$(wc -l <"$work/lines")
[ "$count" -eq "$lines" ] || { echo "only $count lines were found" >&2; exit 1; }
# Line n goes to partition n mod P, so what each partition must hold is known beforehand.
awk -v p=$partitions -v base="$work/sent" '{ print > (base "." (NR % p)) }' "$work/lines"
echo "$lines lines, $(stat -c %s "$work/lines") bytes"

victim=$(leader_of 0)
victim_pid=$(cat "$data/pids/broker-$victim.pid")
say "4. Streaming it with acks=all; half-way, kill -9 of broker $victim (pid $victim_pid), leader of partition 0"
producers=()
for ((p = 0; p < partitions; p++)); do
  half=$(($(wc -l <"$work/sent.$p") / 2))
  {
    head -n $half "$work/sent.$p"
    if [ $p -eq 0 ]; then
      # The first half is on its way: some of it acknowledged, some in flight.
      now_ms >"$work/killed-at"
      kill -KILL "$victim_pid"
    fi
    tail -n +$((half + 1)) "$work/sent.$p"
  } | kcat -P -b "$bootstrap" -t "$topic" -p $p \
    -X acks=all -X enable.idempotence=true -X linger.ms=5 -X message.timeout.ms=60000 \
    2>"$work/producer.$p" &
  producers+=($!)
done
produced=true
for pid in "${producers[@]}"; do wait "$pid" || produced=false; done
if ! $produced; then
  cat "$work"/producer.* >&2
  echo "a producer failed" >&2
  exit 1
fi
acknowledged=$(now_ms)
killed_at=$(cat "$work/killed-at")
# The brokers' logs say when the new leader took over.
leading=$(cat "$data"/logs/broker-*.log | sed 's/\x1b\[[0-9;]*m//g' |
  sed -n "s/^\([^ ]*\) .* leading topic=$topic partition=0 epoch=[1-9].*/\1/p" | sort | head -n 1)
[ -n "$leading" ] || { echo "no broker's log says that it leads partition 0 now" >&2; exit 1; }
echo "partition 0 was without a leader for $(($(date -d "$leading" +%s%3N) - killed_at)) ms"
echo "everything acknowledged $((acknowledged - killed_at)) ms after the kill"
describe | sed -n '/partition /p'

say "5. Reading everything back, in order"
lost=0
for ((p = 0; p < partitions; p++)); do
  kcat -C -q -b "$bootstrap" -t "$topic" -p $p -o beginning -e >"$work/read.$p" 2>"$work/consumer.$p"
  sent_sum=$(sha256sum <"$work/sent.$p" | cut -c1-16)
  read_sum=$(sha256sum <"$work/read.$p" | cut -c1-16)
  verdict=same
  [ "$sent_sum" = "$read_sum" ] || { verdict=DIFFERENT; lost=1; }
  echo "partition $p: sent $(wc -l <"$work/sent.$p") lines $sent_sum, read $(wc -l <"$work/read.$p") lines $read_sum: $verdict"
done
[ $lost -eq 0 ] || { echo "what was read is not what was sent" >&2; exit 1; }

say "6. The killed broker comes back"
scripts/start-cluster.sh --data "$data" --base-port "$base_port" ${extra[@]+"${extra[@]}"} >/dev/null
deadline=$((SECONDS + patience))
until [ "$(describe | grep -cE 'isrs: [0-9]+,[0-9]+,[0-9]+')" -eq $partitions ]; do
  [ $SECONDS -lt $deadline ] || { describe; echo "broker $victim did not rejoin within $patience s" >&2; exit 1; }
  sleep 0.1
done
describe | sed -n '/partition /p'
echo "every replica is in sync again; nothing was lost"

if ! $test_run; then
  say "The cluster is running. Talk to it:"
  echo "  echo hello | kcat -P -b $bootstrap -t $topic -X acks=all"
  echo "  kcat -C -b $bootstrap -t $topic -o -5 -e"
  echo "  scripts/stop-cluster.sh --data $data"
fi

#!/usr/bin/env bash
# The deployment, proved with a real Docker engine: builds the image, starts docker-compose.yml as a new
# project, and talks to it with stock clients (kcat) from this machine and from a container at once, while
# the leader's container is killed. Nothing may be lost. Then a controller's volume is wiped: that
# controller must refuse to start. Prints the image's size and the time from `up` to the first
# acknowledged record, and leaves nothing behind.
#
#   deploy/test.sh
#
# Nothing is pulled: the client's image is made of this machine's kcat. Where no engine answers and this is
# root, one is started for the test, in a network namespace of its own, and stopped at the end. DEPLOY_BINARY
# names a static binary to use instead of building one. Exit codes: 0 all held, 1 something did not, 2 the
# test could not run here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
. scripts/requirements.sh
require kcat docker
if docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
else
  require docker-compose
  compose=(docker-compose)
fi

# An engine of our own lives in a network namespace, and all of this test with it: bridges, firewall rules
# and published ports end when it does. What needs the network comes before.
if ! docker info >/dev/null 2>&1; then
  if [ "$(id -u)" -ne 0 ] || ! command -v dockerd >/dev/null; then
    echo "deploy/test: no Docker engine answers at ${DOCKER_HOST:-the usual socket}: start one, or run this as root with dockerd installed (Debian: docker.io)" >&2
    exit 2
  fi
  if [ "${DEPLOY_OWN_ENGINE:-}" != true ]; then
    require ip iptables
    DEPLOY_BINARY=$(deploy/build-image.sh --binary)
    export DEPLOY_BINARY DEPLOY_OWN_ENGINE=true
    exec unshare --net "$root/deploy/test.sh"
  fi
  ip link set lo up
fi

project="ottla-test-$$"
work=$(mktemp -d)
engine=""
client_image="localhost/$project-client"
export DEPLOY_IMAGE="localhost/$project"
# Below the range that the kernel hands out to clients.
base_port=$((20000 + RANDOM % 4000 * 3))
export DEPLOY_PORT_1=$base_port DEPLOY_PORT_2=$((base_port + 1)) DEPLOY_PORT_3=$((base_port + 2))
outside="127.0.0.1:$DEPLOY_PORT_1,127.0.0.1:$DEPLOY_PORT_2,127.0.0.1:$DEPLOY_PORT_3"
inside="broker-1:9092,broker-2:9092,broker-3:9092"

cluster() { "${compose[@]}" --project-name "$project" --file deploy/docker-compose.yml "$@"; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
now_ms() { date +%s%3N; }
fail() {
  echo "deploy/test: $*" >&2
  exit 1
}
# until_true SECONDS WHAT COMMAND…
until_true() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ $SECONDS -lt $deadline ] || fail "$what: not within the time it should take"
    sleep 0.1
  done
}
# What this project has made and not removed.
remains() {
  docker ps --all --quiet --filter "label=com.docker.compose.project=$project"
  docker volume ls --quiet --filter "label=com.docker.compose.project=$project"
  docker network ls --quiet --filter "label=com.docker.compose.project=$project"
}
finish() {
  status=$?
  trap - EXIT
  if docker info >/dev/null 2>&1; then
    if [ -n "$(remains)" ]; then
      [ $status -eq 0 ] || cluster logs --tail 20 >&2 || true
      cluster down --volumes --timeout 5 >/dev/null 2>&1 || true
    fi
    docker image rm --force "$DEPLOY_IMAGE" "$client_image" >/dev/null 2>&1 || true
  fi
  if [ -n "$engine" ]; then
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
  fi
  rm -rf "$work"
  exit $status
}
trap finish EXIT

if [ "${DEPLOY_OWN_ENGINE:-}" = true ]; then
  export DOCKER_HOST="unix://$work/docker.sock"
  dockerd --data-root "$work/engine" --exec-root "$work/engine-run" --pidfile "$work/engine.pid" \
    --host "$DOCKER_HOST" >"$work/engine.log" 2>&1 &
  engine=$!
  for ((i = 0; i < 300; i++)); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.1
  done
  if ! docker info >/dev/null 2>&1; then
    tail -n 5 "$work/engine.log" >&2
    echo "deploy/test: dockerd does not start here" >&2
    exit 2
  fi
fi
echo "engine $(docker version --format '{{.Server.Version}}'), $("${compose[@]}" version --short 2>/dev/null | sed 's/^/Compose /')"

say "1. The image, and one for the clients"
deploy/build-image.sh "$DEPLOY_IMAGE"
# kcat and the libraries that it is linked to, at their paths.
mkdir "$work/client"
{ command -v kcat; ldd "$(command -v kcat)" | grep -o '/[^ ]*'; } | sort -u |
  while read -r file; do cp --parents --dereference "$file" "$work/client"; done
printf 'FROM scratch\nCOPY . /\nUSER 65532\nENTRYPOINT ["%s"]\n' "$(command -v kcat)" |
  docker build --quiet --tag "$client_image" --file - "$work/client" >/dev/null
inside_kcat() { docker run --rm --interactive --network "${project}_default" "$client_image" "$@"; }
# A container of the image is the CLI too.
inside_ottla() { docker run --rm --network "${project}_default" "$DEPLOY_IMAGE" "$@" --bootstrap-server "$inside"; }

say "2. up: a new project"
began=$(now_ms)
cluster up --detach >"$work/up" 2>&1 || { cat "$work/up" >&2; fail "up"; }
up=$(now_ms)
topic=orders
partitions=3
create() { inside_ottla topics create $topic --partitions $partitions --replication-factor 3 >"$work/create" 2>&1; }
until_true 60 "creating a topic" create
first() { echo "the first record" | kcat -P -b "$outside" -t $topic -p 0 -X acks=all -X message.timeout.ms=5000 2>/dev/null; }
until_true 60 "the first record" first
acknowledged=$(now_ms)
echo "up returned after $((up - began)) ms; first acknowledged record $((acknowledged - began)) ms after up began"

healthy() {
  [ "$(docker ps --quiet --filter "label=com.docker.compose.project=$project" --filter health=healthy | wc -l)" -eq 6 ]
}
until_true 60 "six healthy containers" healthy
echo "six containers, all healthy"
id_of() { docker inspect --format '{{.State.Pid}}' "$(cluster ps --quiet "$1")"; }
[ "$(awk '/^Uid/ {print $2}' "/proc/$(id_of broker-1)/status")" -eq 65532 ] || fail "broker-1 does not run as 65532"
docker exec "$(cluster ps --quiet controller-101)" /usr/local/bin/ottla healthcheck --address localhost:19092
if docker exec "$(cluster ps --quiet broker-1)" /usr/local/bin/ottla healthcheck --address localhost:1 2>/dev/null; then
  fail "healthcheck says that nobody is well"
fi

say "3. What clients are told"
echo "from this machine:"
kcat -L -b "127.0.0.1:$DEPLOY_PORT_2" -t $topic | tee "$work/metadata" | sed -n '/broker .* at /p'
[ "$(grep -c " at 127.0.0.1:" "$work/metadata")" -eq 3 ] || fail "clients outside are sent elsewhere"
echo "from a container:"
inside_kcat -L -b broker-2:9092 -t $topic | tee "$work/metadata" | sed -n '/broker .* at /p'
[ "$(grep -c " at broker-[123]:9092" "$work/metadata")" -eq 3 ] || fail "clients inside are sent elsewhere"

describe() { kcat -L -b "$outside" -t $topic 2>/dev/null; }
leader_of() { describe | sed -n "s/^ *partition $1, leader \([0-9-]*\),.*/\1/p"; }
in_sync() { [ "$(describe | grep -cE 'isrs: [0-9]+,[0-9]+,[0-9]+')" -eq $partitions ]; }
until_true 60 "all replicas in sync" in_sync
victim=$(leader_of 0)
say "4. Streaming with acks=all, from here and from a container; half-way, the container broker-$victim is killed"
lines=60000
for ((p = 0; p < partitions; p++)); do
  # Partition 2 is written from within the network, the others from outside.
  seq $lines | awk -v p=$p '{ printf "%d-%06d the quick brown fox jumps over the lazy dog\n", p, $1 }' >"$work/sent.$p"
done
settings=(-X acks=all -X enable.idempotence=true -X linger.ms=5 -X message.timeout.ms=60000)
producers=()
for ((p = 0; p < partitions; p++)); do
  {
    head -n $((lines / 2)) "$work/sent.$p"
    if [ $p -eq 0 ]; then
      now_ms >"$work/killed-at"
      docker kill --signal KILL "$(cluster ps --quiet "broker-$victim")" >/dev/null
    fi
    tail -n +$((lines / 2 + 1)) "$work/sent.$p"
  } | if [ $p -eq 2 ]; then
    inside_kcat -P -b "$inside" -t $topic -p $p "${settings[@]}" 2>"$work/producer.$p"
  else
    kcat -P -b "$outside" -t $topic -p $p "${settings[@]}" 2>"$work/producer.$p"
  fi &
  producers+=($!)
done
for pid in "${producers[@]}"; do
  wait "$pid" || { cat "$work"/producer.* >&2; fail "a producer failed"; }
done
echo "$((lines * partitions)) records acknowledged; the last one $(($(now_ms) - $(cat "$work/killed-at"))) ms after the kill"
describe | sed -n '/partition /p'

say "5. Reading everything back, from both sides"
# The first record of all went to partition 0.
{ echo "the first record"; cat "$work/sent.0"; } >"$work/expected.0"
for ((p = 1; p < partitions; p++)); do cp "$work/sent.$p" "$work/expected.$p"; done
read_back() {
  local p read=(-C -q -t $topic -o beginning -e)
  for ((p = 0; p < partitions; p++)); do
    kcat "${read[@]}" -b "$outside" -p $p >"$work/outside.$p" 2>/dev/null
    inside_kcat "${read[@]}" -b "$inside" -p $p >"$work/inside.$p" 2>/dev/null
    for side in outside inside; do
      cmp -s "$work/expected.$p" "$work/$side.$p" ||
        fail "partition $p read from $side is not what was sent: $(wc -l <"$work/$side.$p") of $(wc -l <"$work/expected.$p") lines"
    done
    echo "partition $p: $(wc -l <"$work/expected.$p") records, read from here and from a container: the same, in order"
  done
}
read_back

say "6. The killed container comes back"
cluster up --detach >>"$work/up" 2>&1 || { tail -n 20 "$work/up" >&2; fail "up"; }
until_true 90 "broker-$victim in sync again" in_sync
describe | sed -n '/partition /p'

say "7. A controller's volume is wiped: that one refuses to start, the others go on"
cluster rm --stop --force controller-103 birth >/dev/null 2>&1
docker volume rm "${project}_controller-103" >/dev/null
cluster up --detach >>"$work/up" 2>&1 || { tail -n 20 "$work/up" >&2; fail "up"; }
refuses() { cluster logs controller-103 2>/dev/null | grep -q 'is not formatted'; }
until_true 30 "controller-103's refusal" refuses
cluster logs birth 2>/dev/null | grep -o 'ottla: .*' | tail -n 1
cluster logs controller-103 2>/dev/null | grep -o 'ottla: .*' | tail -n 1
inside_ottla topics create afterwards --partitions 1 --replication-factor 3 >/dev/null
echo "one more" | kcat -P -b "$outside" -t afterwards -X acks=all
read_back

say "8. down"
began=$(now_ms)
cluster down --volumes >/dev/null 2>&1
echo "down --volumes took $(($(now_ms) - began)) ms"
[ -z "$(remains)" ] || fail "down left something behind: $(remains)"
echo
echo "deploy/test: all held, nothing was lost"

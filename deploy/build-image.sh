#!/usr/bin/env bash
# Builds the static binary and the image that deploy/docker-compose.yml runs. Nothing is pulled.
#
#   deploy/build-image.sh [IMAGE]
#   deploy/build-image.sh --binary       only the binary; prints its path
#
# IMAGE defaults to localhost/ottla, the name that docker-compose.yml looks for. DEPLOY_BINARY names a
# static binary to use instead of building one.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/scripts/requirements.sh"
image=${1:-localhost/ottla}
require readelf

if [ -n "${DEPLOY_BINARY:-}" ]; then
  binary=$DEPLOY_BINARY
else
  require cargo cc make
  # With --target, the flag stays away from build scripts and procedural macros, which it breaks. An
  # image needs function names in a panic's backtrace, but not the lines.
  triple="$(uname -m)-unknown-linux-gnu"
  RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    cargo build --quiet --locked --release --package ottla --target "$triple" \
    --manifest-path "$root/Cargo.toml" >&2
  binary="${CARGO_TARGET_DIR:-$root/target}/$triple/release/ottla"
fi
# "static-pie linked" or "statically linked", from the program headers: no interpreter is asked for.
if LC_ALL=C readelf --program-headers "$binary" | grep -q INTERP; then
  echo "build-image: $binary needs a dynamic loader, which an image from scratch does not have" >&2
  exit 1
fi
if [ "$image" = --binary ]; then
  echo "$binary"
  exit
fi

require docker
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/directories/var/lib/ottla" "$context/directories/quorum/"{1,2,3,4,5}
cp "$binary" "$context/ottla"
cp "$root/deploy/node.properties" "$root/deploy/Dockerfile" "$context"
docker build --quiet --tag "$image" "$context" >/dev/null
echo "$image: $(docker image inspect --format '{{.Size}}' "$image") bytes"

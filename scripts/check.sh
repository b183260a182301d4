#!/usr/bin/env bash
# The quick gate before each commit: formatting, lints, documentation and the tests of the crates that
# changed (and of those that use them). Reads only; --all tests every crate.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

changed=$( (git diff --name-only HEAD; git diff --name-only 'HEAD~1' 2>/dev/null; git ls-files --others --exclude-standard) |
  sed -n 's#^crates/\([^/]*\)/.*#\1#p; s#^proto/.*#protocol#p' | sort -u)
# Each crate's tests run for a change in what it is built on too.
packages=()
for crate in protocol metadata storage replication controller broker ottla; do
  case " $changed " in *protocol*) affected=all ;; esac
  if [ "${1:-}" = --all ] || [ "${affected:-}" = all ] || grep -qx "$crate" <<<"$changed"; then
    packages+=(--package "$crate")
    case $crate in metadata | storage) affected=all ;; esac
  fi
done
if [ ${#packages[@]} -gt 0 ]; then
  cargo test --locked --quiet "${packages[@]}" --lib --bins
fi
echo "check: ok"

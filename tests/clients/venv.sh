# Sourced by what uses the clients under test: keeps them in target/test-clients and sets `venv`.
# Expects `root` and scripts/requirements.sh.
require python3
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  require python3-venv
fi

venv="${CARGO_TARGET_DIR:-$root/target}/test-clients"
if ! cmp -s "$root/tests/clients/requirements.txt" "$venv/installed.txt"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  again "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$root/tests/clients/requirements.txt"
  cp "$root/tests/clients/requirements.txt" "$venv/installed.txt"
fi

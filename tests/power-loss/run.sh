#!/usr/bin/env bash
# Power loss on all machines at once: what was acknowledged must be on the disks.
#
#   tests/power-loss/run.sh [--rounds N] [--fs ext4|xfs]… [--seconds S] [--debug]
#
# Three controllers and three brokers, each with a file system of its own on a loop device. While producers
# write, all disks are copied at one moment; the cluster is killed, and starts again on the copies.
# Everything acknowledged must be read back. A second topic, written at the same time and the same but for
# flush.messages at Kafka's default, is the control: it must lose something.
#
# Needs root and loop devices; OTTLA_BIN names another binary to test. Exit codes: 0 nothing was lost, and
# the control lost something; 1 not so; 2 the test cannot run here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
. scripts/requirements.sh

debug=()
arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --rounds | --fs | --seconds) arguments+=("$1" "${2:?"$1 needs a value"}"); shift 2 ;;
    --debug) debug=(--debug); shift ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
done
cannot() {
  echo "power-loss: skipped: $*" >&2
  exit 2
}
[ "$(id -u)" -eq 0 ] || cannot "only root may mount file systems"
require losetup mkfs.ext4 mkfs.xfs
losetup --find >/dev/null 2>&1 || cannot "there are no loop devices here"
# The copies are made by an outer file system that can share blocks.
grep -qw xfs /proc/filesystems || modprobe xfs 2>/dev/null || cannot "this kernel has no xfs"

. tests/clients/venv.sh
PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python" tests/power-loss/power_loss.py \
  ${debug[@]+"${debug[@]}"} ${arguments[@]+"${arguments[@]}"}

"""Three controllers and three brokers on those disks, started by the scripts that users have."""

import os
import random
import signal
import subprocess
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CONTROLLERS = ["controller-101", "controller-102", "controller-103"]
BROKERS = ["broker-1", "broker-2", "broker-3"]
NAMES = CONTROLLERS + BROKERS
_PATIENCE = 60.0

# A machine that lost power comes up with another boot id, and by that a broker knows that its page cache
# is gone. Here the kernel goes on, so each start is shown an id of its own, in a mount namespace of its own.
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Nodes:
    """The processes. `data` is the folder of scripts/start-cluster.sh; `data/NAME` may be a mount."""

    def __init__(self, data, debug):
        self._data = data
        self._debug = ["--debug"] if debug else []
        # Sixteen ports outside the range that the kernel hands out.
        self._base_port = 10000 + random.randrange(600) * 16
        self.bootstrap = ""

    def start(self):
        """Starts every node and waits until all are ready."""
        boot_id = self._data / "boot-id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        start = [ROOT / "scripts/start-cluster.sh", "--data", self._data, "--base-port", self._base_port]
        script = f'mount --bind "$0" {_BOOT_ID} && exec "$@"'
        command = ["unshare", "--mount", "bash", "-c", script, boot_id, *start, *self._debug]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the cluster does not start: {done.stderr}")
        self.bootstrap = done.stdout.strip().removeprefix("bootstrap: ")

    def freeze(self):
        """Stops every process where it is. No message is sent by one after another one has stopped
        that the other could still act on: the disks are of one consistent moment."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def kill(self):
        """kill -9 of every process, and waits for their end."""
        pids = self._pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE
        while any(_runs(pid) for pid in pids):
            if time.monotonic() > deadline:
                raise RuntimeError("a process does not end")
            time.sleep(0.01)
        for name in NAMES:
            (self._data / f"pids/{name}.pid").unlink(missing_ok=True)

    def warnings(self):
        """What the nodes' logs say that is not routine; for a failed run."""
        lines = []
        for log in sorted((self._data / "logs").glob("*.log")):
            for line in log.read_text(errors="replace").splitlines():
                if " WARN " in line or " ERROR " in line or line.startswith("ottla:"):
                    lines.append(f"{log.name}: {line}")
        return lines[-40:]

    def _pids(self):
        pids = []
        for name in NAMES:
            file = self._data / f"pids/{name}.pid"
            if file.exists() and _runs(pid := int(file.read_text())):
                pids.append(pid)
        return pids


def _runs(pid):
    try:
        # A process that nobody waited for is gone too.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

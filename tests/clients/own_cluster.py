"""A cluster whose processes a test may kill."""

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_PATIENCE = 30.0


class OwnCluster:
    """Three controllers and three brokers in a temporary folder, by the scripts that users have.

    `OTTLA_BIN` names the binary.
    """

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="ottla-clients-")
        self.data = Path(self._folder.name) / "data"
        self._base_port = free_base_port()
        self.bootstrap = ""

    def start(self):
        """Starts the nodes that do not run, and waits until every node is ready."""
        command = [ROOT / "scripts/start-cluster.sh", "--data", self.data, "--base-port", str(self._base_port)]
        # The suite's own variable would be taken for a configuration key of the nodes.
        environment = {name: value for name, value in os.environ.items() if name != "OTTLA_BOOTSTRAP"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        self.bootstrap = done.stdout.strip().removeprefix("bootstrap: ")

    def kill(self, broker):
        """kill -9 of a broker; returns when its process is gone."""
        self._signal(broker, signal.SIGKILL)

    def shut_down(self, broker):
        """SIGTERM: a controlled shutdown."""
        self._signal(broker, signal.SIGTERM)

    def close(self):
        """Stops every node and removes the data."""
        if (self.data / "pids").is_dir():
            subprocess.run(
                [ROOT / "scripts/stop-cluster.sh", "--data", self.data], capture_output=True, check=True
            )
        self._folder.cleanup()

    def _signal(self, broker, number):
        pid = int((self.data / f"pids/broker-{broker}.pid").read_text())
        os.kill(pid, number)
        deadline = time.monotonic() + _PATIENCE
        while _runs(pid):
            assert time.monotonic() < deadline, f"broker {broker} does not end"
            time.sleep(0.01)


def _runs(pid):
    try:
        # Empty for a process that has ended and was not yet waited for.
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_base_port():
    """The first of sixteen ports outside the range that the kernel hands out."""
    while True:
        base = 10_000 + random.randrange(600) * 16
        try:
            for port in (base, base + 1, base + 2, base + 10_000, base + 10_100):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue

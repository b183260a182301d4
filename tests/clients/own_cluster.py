"""A cluster whose processes a test may kill."""

import collections
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# For every node, where members speak the protocol of KIP-848. There it is the broker that says how often they tell of
# themselves, which is how soon they hear of a rebalance; and a group may have a session as short as a classic member's.
GROUP_TIMES = (
    "group.consumer.min.heartbeat.interval.ms=100",
    "group.consumer.heartbeat.interval.ms=300",
    "group.consumer.min.session.timeout.ms=6000",
)
_PATIENCE = 120.0
_COUNTER = re.compile(r'^ottla_requests_total\{request="(\w+)"\} (\d+)$', re.MULTILINE)


class OwnCluster:
    """Controllers and brokers in a temporary folder, by the scripts that users have.

    `OTTLA_BIN` names the binary.
    """

    def __init__(self, brokers=3, controllers=3, disks=1, settings=()):
        """`settings` are `key=value`, for every node."""
        self._folder = tempfile.TemporaryDirectory(prefix="ottla-clients-")
        self.data = Path(self._folder.name) / "data"
        self._shape = ["--brokers", str(brokers), "--controllers", str(controllers), "--disks", str(disks)]
        self._shape += [word for setting in settings for word in ("--set", setting)]
        self._base_port = free_base_port()
        self.bootstrap = ""

    def start(self):
        """Starts the nodes that do not run, and waits until every node is ready."""
        place = ["--data", self.data, "--base-port", str(self._base_port)]
        command = [ROOT / "scripts/start-cluster.sh", *place, *self._shape]
        # The suite's own variable would be taken for a configuration key of the nodes.
        environment = {name: value for name, value in os.environ.items() if name != "OTTLA_BOOTSTRAP"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        self.bootstrap = done.stdout.strip().removeprefix("bootstrap: ")

    def kill(self, broker):
        """kill -9 of a broker; returns when its process is gone."""
        self.signal(broker, signal.SIGKILL)

    def shut_down(self, broker):
        """SIGTERM: a controlled shutdown."""
        self.signal(broker, signal.SIGTERM)

    def signal(self, broker, number):
        """Sends a signal to a broker; after SIGKILL and SIGTERM, waits for its end."""
        pid = int((self.data / f"pids/broker-{broker}.pid").read_text())
        os.kill(pid, number)
        deadline = time.monotonic() + _PATIENCE
        while number in (signal.SIGKILL, signal.SIGTERM) and _runs(pid):
            assert time.monotonic() < deadline, f"broker {broker} does not end"
            time.sleep(0.01)

    def ends(self, broker):
        """Whether a broker's process has ended by itself."""
        return not _runs(int((self.data / f"pids/broker-{broker}.pid").read_text()))

    def disk(self, broker, number):
        """A log directory of a broker that has several."""
        return self.data / f"broker-{broker}" / f"disk-{number}"

    def metrics(self, broker):
        """What a broker's /metrics says: values by name and labels."""
        address = self.bootstrap.split(",")[broker - 1]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_PATIENCE) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def requests(self):
        """How many requests of each API the brokers that run have answered since they started."""
        found = collections.Counter()
        for address in self.bootstrap.split(","):
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=_PATIENCE) as answer:
                for name, count in _COUNTER.findall(answer.read().decode()):
                    found[name] += int(count)
        return found

    def keep_logs(self, folder):
        """Copies what the nodes have said so far."""
        shutil.copytree(self.data / "logs", folder, dirs_exist_ok=True)

    def close(self):
        """Stops every node and removes the data."""
        if (self.data / "pids").is_dir():
            subprocess.run(
                [ROOT / "scripts/stop-cluster.sh", "--data", self.data], capture_output=True, check=True
            )
        self._folder.cleanup()


def _runs(pid):
    try:
        # Empty for a process that has ended and was not yet waited for.
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


_bases_given_out = set()


def free_base_port():
    """The first of sixteen ports outside the range that the kernel hands out. Nobody may listen there yet who was given
    others: none is given twice."""
    while True:
        base = 10_000 + random.randrange(600) * 16
        if base in _bases_given_out:
            continue
        try:
            for port in (base + role + node for role in (0, 10_000, 10_100) for node in range(3)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            _bases_given_out.add(base)
            return base
        except OSError:
            continue

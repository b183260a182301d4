"""Apache Kafka itself, as the judge: brokers in KRaft mode, each broker and controller at once."""

import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import java_tools
from own_cluster import free_base_port

_PATIENCE = 120.0
_CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"


class RealKafka:
    """Brokers 1 to `brokers` on loopback, with data in a temporary folder, on `disks` log directories each."""

    def __init__(self, brokers=1, settings=(), heap="512m", disks=1):
        self._folder = tempfile.TemporaryDirectory(prefix="kafka-judge-")
        self.data = Path(self._folder.name)
        self._jvm = [f"-Xmx{heap}", f"-Xms{heap}", "-XX:+UseSerialGC"]
        self._settings = list(settings)
        self._disks = disks
        self._base_port = free_base_port()
        self._processes = {}
        self._count = brokers
        self.bootstrap = ",".join(f"127.0.0.1:{self._client_port(n)}" for n in self._nodes())
        for node in self._nodes():
            self._write_config(node)
            config = ["--config", str(self._config(node))]
            java_tools.output("kafka-storage", "format", "--cluster-id", _CLUSTER_ID, *config)

    def start(self):
        """Starts the brokers that do not run, and waits until their client ports answer."""
        for node in self._nodes():
            if node not in self._processes:
                command = java_tools.command("kafka-server-start", str(self._config(node)), jvm=self._jvm)
                with open(self.data / f"broker-{node}.log", "ab") as log:
                    self._processes[node] = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE
        for node in self._nodes():
            while not _listens(self._client_port(node)):
                log = self.data / f"broker-{node}.log"
                assert self._processes[node].poll() is None, f"broker {node} ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, f"broker {node} does not start: {log.read_text()[-2000:]}"
                time.sleep(0.1)

    def signal(self, node, number):
        """Sends a signal to a broker; after SIGKILL and SIGTERM, waits for its end."""
        self._processes[node].send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._processes.pop(node).wait(_PATIENCE)

    def log_folder(self, node, disk=1):
        return self.data / f"data-{node}" / f"disk-{disk}"

    def close(self):
        """Ends the brokers and removes their data."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self._processes.values():
            process.wait(_PATIENCE)
        self._folder.cleanup()

    def _nodes(self):
        return range(1, self._count + 1)

    def _client_port(self, node):
        return self._base_port + node - 1

    def _config(self, node):
        return self.data / f"broker-{node}.properties"

    def _write_config(self, node):
        voters = ",".join(f"{n}@127.0.0.1:{self._client_port(n) + 10_000}" for n in self._nodes())
        client = f"PLAINTEXT://127.0.0.1:{self._client_port(node)}"
        settings = [
            "process.roles=broker,controller",
            f"node.id={node}",
            f"controller.quorum.voters={voters}",
            f"listeners={client},CONTROLLER://127.0.0.1:{self._client_port(node) + 10_000}",
            f"advertised.listeners={client}",
            "controller.listener.names=CONTROLLER",
            f"log.dirs={','.join(str(self.log_folder(node, disk)) for disk in range(1, self._disks + 1))}",
            f"offsets.topic.replication.factor={self._count}",
            *self._settings,
        ]
        self._config(node).write_text("".join(f"{line}\n" for line in settings))


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False

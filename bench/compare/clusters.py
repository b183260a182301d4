"""The two sides. Both get the same properties file: Ottla's keys are Kafka's."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from .processes import Node

BROKERS = 3
CONTROLLERS = 3
CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"

# What Kafka's own start script gives a server.
JAVA = (
    "java -server -Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35"
    " -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true"
).split()


class Cluster:
    """Three controllers and three brokers, each a process, in a folder of its own."""

    name = ""

    def __init__(self, folder, base_port, properties):
        """`properties` are added to every node's."""
        self.folder = Path(folder)
        self.base_port = base_port
        self.properties = properties
        self.nodes = {"brokers": [], "controllers": []}
        self.bootstrap = ",".join(f"127.0.0.1:{base_port + i}" for i in range(BROKERS))

    def ports(self):
        yield from range(self.base_port, self.base_port + BROKERS)
        yield from range(self.base_port + 10, self.base_port + 10 + BROKERS)
        yield from range(self.base_port + 20, self.base_port + 20 + CONTROLLERS)

    def configure(self):
        """Writes every node's file; returns (role, name, path) of each."""
        for folder in ("config", "logs", "data"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        voters = ",".join(f"{101 + i}@127.0.0.1:{self.base_port + 20 + i}" for i in range(CONTROLLERS))
        common = {
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            # Deleted topics give their memory back before the next row.
            "log.segment.delete.delay.ms": 500,
        } | self.properties
        nodes = []
        for i in range(CONTROLLERS):
            keys = {
                "process.roles": "controller",
                "node.id": 101 + i,
                "listeners": f"CONTROLLER://127.0.0.1:{self.base_port + 20 + i}",
            }
            nodes.append(("controllers", f"controller-{101 + i}", keys))
        for i in range(BROKERS):
            listeners = (
                f"PLAINTEXT://127.0.0.1:{self.base_port + i},INTERNAL://127.0.0.1:{self.base_port + 10 + i}"
            )
            keys = {
                "process.roles": "broker",
                "node.id": 1 + i,
                "listeners": listeners,
                "advertised.listeners": listeners,
                "inter.broker.listener.name": "INTERNAL",
            }
            nodes.append(("brokers", f"broker-{1 + i}", keys))
        files = []
        for role, name, keys in nodes:
            path = self.folder / "config" / f"{name}.properties"
            keys |= common | {"log.dirs": self.folder / "data" / name}
            path.write_text("".join(f"{key}={value}\n" for key, value in keys.items()))
            files.append((role, name, path))
        return files

    def start(self):
        """Formats, then starts all processes at once; returns when that was, in seconds since 1970."""
        files = self.configure()
        self.format(files)
        since = time.time()
        for role, name, path in files:
            log = self.folder / "logs" / f"{name}.log"
            self.nodes[role].append(Node(name, self.command(path), log))
        return since

    def broker(self, node_id):
        return self.nodes["brokers"][node_id - 1]

    def restart(self, node_id):
        """Starts a broker that was killed once more."""
        old = self.broker(node_id)
        self.nodes["brokers"][node_id - 1] = Node(old.name, old.command, old.log)

    def all_nodes(self):
        return [node for group in self.nodes.values() for node in group]

    def check(self):
        for node in self.all_nodes():
            node.check()

    def pids(self, role):
        return ",".join(str(node.pid) for node in self.nodes[role])

    def peak_memory_mib(self):
        """Of the largest process of each role."""
        return {role: max(node.peak_memory_mib() for node in nodes) for role, nodes in self.nodes.items()}

    def kill(self):
        for node in self.all_nodes():
            node.kill()

    def data_bytes(self):
        """What the logs take on disk; files may vanish meanwhile."""
        total = 0
        for folder, _, names in os.walk(self.folder / "data"):
            for name in names:
                try:
                    total += os.stat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    pass
        return total


class Ottla(Cluster):
    """Brokers format an empty directory by themselves; controllers never do."""

    name = "ottla"

    def __init__(self, folder, base_port, properties, program):
        super().__init__(folder, base_port, properties)
        self.program = program

    def format(self, files):
        for role, _, path in files:
            if role == "controllers":
                command = [self.program, "format", "--cluster-id", CLUSTER_ID, "--config", path]
                run(command, timeout=30)

    def command(self, path):
        return [self.program, "server", "--config", path]


class Kafka(Cluster):
    """Formatting starts a JVM for every node, so it is done once and copied; `formatted` keeps the copies."""

    name = "kafka"

    def __init__(self, folder, base_port, properties, libraries, formatted):
        super().__init__(folder, base_port, properties)
        self.class_path = f"{libraries}/*"
        self.formatted = Path(formatted)

    def format(self, files):
        for _, name, path in files:
            kept = self.formatted / name
            data = self.folder / "data" / name
            if not kept.exists():
                tool = ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", self.class_path]
                tool += ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", path]
                run(tool, timeout=60)
                shutil.copytree(data, kept)
            else:
                shutil.copytree(kept, data)

    def command(self, path):
        return [*JAVA, "-cp", self.class_path, "kafka.Kafka", path]


def run(command, timeout):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout

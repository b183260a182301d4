#!/usr/bin/env python3
"""Kills a partition's leader again and again under an idempotent producer with acks=all, and measures.

    bench/failover.py --rounds 100 [--with-controller] [--ottla target/release/ottla]

Each round: the leader's process (and with --with-controller the active controller's too) gets kill -9.
Measured from the kill: until the new leader leads (its own log line), until the first acknowledgement by
it. Then the killed nodes come back and rejoin. At the end everything is read back: no record may be lost,
doubled or out of order. Needs confluent-kafka. Prints one line a round and a summary as JSON.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

ROOT = Path(__file__).resolve().parent.parent
TOPIC = "failover"


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Cluster:
    """A local cluster of processes, by scripts/start-cluster.sh."""

    def __init__(self, ottla, data, base_port):
        self.ottla, self.data, self.base_port = str(ottla), Path(data), base_port
        self.bootstrap = None

    def start(self):
        env = dict(os.environ, OTTLA_BIN=self.ottla)
        command = [ROOT / "scripts/start-cluster.sh", "--data", self.data, "--base-port", str(self.base_port)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
        self.bootstrap = out.strip().split("bootstrap: ")[1]

    def stop(self):
        subprocess.run([ROOT / "scripts/stop-cluster.sh", "--data", self.data], check=True)

    def json(self, *arguments):
        return json.loads(run(self.ottla, *arguments, "--bootstrap-server", self.bootstrap, "--output", "json"))

    def partition(self):
        return self.json("topics", "describe", TOPIC)[0]

    def active_controller(self):
        nodes = self.json("cluster", "describe")
        return next(n["node"] for n in nodes if n["role"] == "controller" and n["state"] == "active")

    def kill(self, name):
        pid = int((self.data / "pids" / f"{name}.pid").read_text())
        os.kill(pid, signal.SIGKILL)

    def led_since(self, epoch):
        """When a broker said that it leads the partition in this epoch; None: none has."""
        line = re.compile(rf"^(\S+) .* leading topic={TOPIC} partition=0 epoch={epoch} ")
        for log in self.data.glob("logs/broker-*.log"):
            for text in log.read_text(errors="replace").splitlines():
                if found := line.match(text):
                    return datetime.fromisoformat(found[1].replace("Z", "+00:00")).timestamp()
        return None


class Load:
    """Writes increasing numbers and notes each acknowledgement."""

    def __init__(self, bootstrap):
        self.producer = Producer(
            {"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 1}
        )
        self.acknowledged, self.failed, self.sent = [], [], 0
        self.running = True
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def delivered(self, error, message):
        if error:
            self.failed.append(str(error))
        else:
            self.acknowledged.append((time.time(), message.offset()))

    def loop(self):
        while self.running:
            try:
                self.producer.produce(TOPIC, str(self.sent).encode(), partition=0, on_delivery=self.delivered)
                self.sent += 1
            except BufferError:
                pass
            self.producer.poll(0.001)

    def end(self):
        self.running = False
        self.thread.join()
        self.producer.flush(120)


def wait(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise SystemExit(f"{what} did not happen within {seconds} s")


def first_ack_after(load, moment, offset):
    return next((at for at, o in load.acknowledged if at > moment and o >= offset), None)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def summary(values):
    return {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99), "max": max(values)}


def read_back(bootstrap, expected):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    values, deadline = [], time.monotonic() + 120
    while len(values) < expected and time.monotonic() < deadline:
        values += [int(m.value()) for m in consumer.consume(10_000, 1.0) if not m.error()]
    # A moment more, for doubles.
    values += [int(m.value()) for m in consumer.consume(10_000, 2.0) if not m.error()]
    consumer.close()
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--with-controller", action="store_true")
    parser.add_argument("--ottla", type=Path, default=ROOT / "target/release/ottla")
    parser.add_argument("--base-port", type=int, default=23092)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(arguments.ottla, folder, arguments.base_port)
        cluster.start()
        try:
            return measure(cluster, arguments)
        finally:
            cluster.stop()


def measure(cluster, arguments):
    run(
        cluster.ottla, "topics", "create", TOPIC, "--partitions", "1", "--replication-factor", "3",
        "--bootstrap-server", cluster.bootstrap,
    )  # fmt: skip
    load = Load(cluster.bootstrap)
    elections, acknowledgements = [], []
    for round_ in range(1, arguments.rounds + 1):
        wait(lambda: len(cluster.partition()["isr"]) == 3, 120, "three replicas in sync")
        before = cluster.partition()
        wait(lambda: load.acknowledged and load.acknowledged[-1][0] > time.time() - 0.1, 30, "steady load")
        victims = [f"broker-{before['leader']}"]
        if arguments.with_controller:
            victims.append(f"controller-{cluster.active_controller()}")
        killed = time.time()
        for victim in victims:
            cluster.kill(victim)
        epoch = before["leader_epoch"] + 1
        led = wait(lambda: cluster.led_since(epoch), 60, "a new leader")
        acknowledged = wait(lambda: first_ack_after(load, led, 0), 60, "an acknowledgement")
        elections.append(round((led - killed) * 1000, 1))
        acknowledgements.append(round((acknowledged - killed) * 1000, 1))
        print(f"round {round_}: killed {'+'.join(victims)}, led after {elections[-1]} ms, acknowledged after {acknowledgements[-1]} ms", flush=True)
        cluster.start()
    load.end()
    values = read_back(cluster.bootstrap, load.sent)
    result = {
        "rounds": arguments.rounds,
        "with_controller": arguments.with_controller,
        "election_ms": summary(elections),
        "first_acknowledgement_ms": summary(acknowledgements),
        "every_election_ms": elections,
        "every_first_acknowledgement_ms": acknowledgements,
        "sent": load.sent,
        "acknowledged": len(load.acknowledged),
        "failed": len(load.failed),
        "read": len(values),
        "lost": load.sent - len(set(values)),
        "doubled": len(values) - len(set(values)),
        "out_of_order": sum(b <= a for a, b in zip(values, values[1:])),
    }
    print(json.dumps(result))
    return 0 if result["lost"] == result["doubled"] == result["out_of_order"] == result["failed"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())

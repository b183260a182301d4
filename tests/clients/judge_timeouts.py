#!/usr/bin/env python3
"""Do records that time out at the client make duplicates of others? Asked of Apache Kafka, and of Ottla.

    tests/clients/run.sh --script tests/clients/judge_timeouts.py --side kafka|ottla [--rounds N] [--seed S]

librdkafka, idempotent, acks=all, gives a record up after `--message-timeout` (5 s). Three brokers, replication
factor 3; in each round one broker is stopped with SIGSTOP for longer than that, and then continued, or killed
and started again. At the end everything is read: values that stand at more than one offset are counted, by what
the client was told about them, and by whether the segment files show another epoch of the same producer there.
"""

import argparse
import collections
import json
import os
import random
import re
import signal
import subprocess
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from own_cluster import OwnCluster
from real_kafka import RealKafka

TOPIC = "judged"
PARTITIONS = 6
PATIENCE = 120.0


class Kafka:
    def __init__(self):
        settings = ["min.insync.replicas=2", "default.replication.factor=3"]
        self._brokers = RealKafka(brokers=3, settings=settings)
        self._brokers.start()
        self.bootstrap = self._brokers.bootstrap
        self.signal, self.start, self.close = self._brokers.signal, self._brokers.start, self._brokers.close
        self.folder = self._brokers.log_folder(1)


class Ottla:
    def __init__(self):
        self._cluster = OwnCluster()
        self._cluster.start()
        self.bootstrap = self._cluster.bootstrap
        self.signal, self.start, self.close = self._cluster.signal, self._cluster.start, self._cluster.close
        self.folder = self._cluster.data / "broker-1"


class Load:
    """A thread that produces unique values, evenly over the partitions, and remembers what came of each."""

    def __init__(self, bootstrap, number, message_timeout, rate):
        self.outcomes = {}
        self._number, self._pause = number, 1.0 / rate
        self._stopping = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": int(message_timeout * 1000),
                "request.timeout.ms": 2000,
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        count = 0
        while not self._stopping.is_set():
            value = f"{self._number}-{count}"
            try:
                self._producer.produce(TOPIC, value, partition=count % PARTITIONS, on_delivery=self._delivered)
                count += 1
            except BufferError:
                pass
            self._producer.poll(self._pause)

    def _delivered(self, error, message):
        outcome = ("acknowledged", message.offset()) if error is None else (error.name(), None)
        self.outcomes[message.value().decode()] = outcome

    def stop(self):
        self._stopping.set()
        self._thread.join()
        assert self._producer.flush(PATIENCE) == 0


def wait_until_whole(admin):
    deadline = time.monotonic() + PATIENCE
    while True:
        partitions = admin.list_topics(TOPIC, 10).topics[TOPIC].partitions.values()
        if len(partitions) == PARTITIONS and all(len(p.isrs) == 3 and p.leader > 0 for p in partitions):
            return
        assert time.monotonic() < deadline, "a replica stays out of the ISR"
        time.sleep(0.2)


def read_all(bootstrap):
    """Every value, with the places where it stands."""
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    places = collections.defaultdict(list)
    for partition in range(PARTITIONS):
        assigned = TopicPartition(TOPIC, partition, OFFSET_BEGINNING)
        _, high = reader.get_watermark_offsets(assigned, timeout=PATIENCE)
        reader.assign([assigned])
        at, deadline = 0, time.monotonic() + PATIENCE
        while at < high:
            assert time.monotonic() < deadline, f"partition {partition}: {at} of {high}"
            for message in reader.consume(10_000, timeout=1.0):
                assert message.error() is None, message.error()
                places[message.value().decode()].append((partition, message.offset()))
                at = message.offset() + 1
    reader.close()
    return places


BATCH = re.compile(r"^baseOffset: (\d+) lastOffset: (\d+) .* producerId: (-?\d+) producerEpoch: (-?\d+) ", re.MULTILINE)


def writers(folder):
    """Who wrote what stands at (partition, offset): (producer id, producer epoch), from a replica's segments."""
    found = {}
    for partition in range(PARTITIONS):
        files = sorted((folder / f"{TOPIC}-{partition}").glob("*.log"))
        command = [os.environ["OTTLA_BIN"], "dump-log", *files]
        dump = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for first, last, producer, epoch in BATCH.findall(dump):
            for offset in range(int(first), int(last) + 1):
                found[partition, offset] = (int(producer), int(epoch))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=["kafka", "ottla"], required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--message-timeout", type=float, default=5.0)
    parser.add_argument("--producers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=100.0, help="records a second of each producer")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    side = Kafka() if arguments.side == "kafka" else Ottla()
    try:
        admin = AdminClient({"bootstrap.servers": side.bootstrap, "log_level": 0})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 3)])[TOPIC].result(PATIENCE)
        wait_until_whole(admin)
        loads = [
            Load(side.bootstrap, number, arguments.message_timeout, arguments.rate)
            for number in range(arguments.producers)
        ]
        for number in range(arguments.rounds):
            time.sleep(3)
            broker = chance.randint(1, 3)
            pause = arguments.message_timeout * chance.uniform(1.2, 2.4)
            killed = chance.random() < 0.5
            print(f"round {number}: broker {broker} stopped for {pause:.1f} s, then {'killed' if killed else 'continued'}", flush=True)
            side.signal(broker, signal.SIGSTOP)
            time.sleep(pause)
            if killed:
                side.signal(broker, signal.SIGKILL)
                side.start()
            else:
                side.signal(broker, signal.SIGCONT)
            wait_until_whole(admin)
        for load in loads:
            load.stop()
        places = read_all(side.bootstrap)
        wrote = writers(side.folder)
    finally:
        side.close()
    outcomes = {value: outcome for load in loads for value, outcome in load.outcomes.items()}
    doubled = {value: where for value, where in places.items() if len(where) > 1}
    acknowledged = {value for value, (name, _) in outcomes.items() if name == "acknowledged"}
    lost = [value for value in acknowledged if value not in places]
    print(
        json.dumps(
            {
                "side": arguments.side,
                "sent": len(outcomes),
                "outcomes": collections.Counter(name for name, _ in outcomes.values()),
                "values doubled": len(doubled),
                "of these acknowledged once": len(acknowledged & doubled.keys()),
                "acknowledged and lost": len(lost),
                "doubled by one producer in two epochs": sum(
                    len({wrote[place][0] for place in where}) == 1
                    and len({wrote[place] for place in where}) == len(where)
                    for where in doubled.values()
                ),
                "the first: partition, offset, producer, epoch": {
                    value: [f"{place} {wrote[place]}" for place in where] for value, where in list(doubled.items())[:3]
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

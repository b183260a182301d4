"""Power is cut under a cluster, again and again: what was acknowledged is read back. See run.sh."""

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from disks import Disks
from nodes import NAMES, Nodes

PARTITIONS = 3
# Kafka's own default: nothing is ever forced to the disk.
KAFKAS_FLUSH_MESSAGES = "9223372036854775807"
# Elections from outside the ISR are allowed on both: where a log has lost its end, what is left of it shall
# be seen. The topic that is synced never needs it.
TOPICS = {
    "synced": {"unclean.leader.election.enable": "true"},
    "control": {"unclean.leader.election.enable": "true", "flush.messages": KAFKAS_FLUSH_MESSAGES},
}
PATIENCE = 60.0


class Writer:
    """An idempotent producer with acks=all that notes every acknowledgement."""

    def __init__(self, bootstrap, topic, stamp):
        self.acknowledged = {}
        self._topic = topic
        self._stamp = stamp
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 1,
                # That brokers disappear is no news here.
                "log_level": 2,
            }
        )
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def stop(self):
        """Ends it; what is acknowledged by now counts, the rest never happened."""
        self._stop.set()
        self._thread.join()
        # Answers that left the brokers before they were stopped.
        self._producer.poll(0.2)
        self._producer.purge()

    def _write(self):
        number = 0
        while not self._stop.is_set():
            if len(self._producer) < 200:
                partition = number % PARTITIONS
                value = f"{self._topic} {self._stamp} {number} {'x' * (number % 300)}".encode()
                self._producer.produce(self._topic, value, partition=partition, on_delivery=self._note)
                number += 1
                self._producer.poll(0)
            else:
                self._producer.poll(0.01)

    def _note(self, error, message):
        if error is None:
            self.acknowledged[message.partition(), message.offset()] = message.value()


def read_back(bootstrap, topic):
    """Everything in a topic, by (partition, offset)."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "power-loss",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 2,
        }
    )
    found = {}
    left = set(range(PARTITIONS))
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
    deadline = time.monotonic() + PATIENCE
    while left:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{topic}: partitions {sorted(left)} cannot be read to their end")
        for message in consumer.consume(num_messages=1000, timeout=0.5):
            error = message.error()
            if error is None:
                found[message.partition(), message.offset()] = message.value()
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition())
    consumer.close()
    return found


def create_topics(bootstrap):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = [NewTopic(name, PARTITIONS, 3, config=config) for name, config in TOPICS.items()]
    for created in admin.create_topics(topics, operation_timeout=PATIENCE).values():
        created.result(PATIENCE)


def wait_for_first(writers):
    """Power is cut while records are being acknowledged, not before."""
    deadline = time.monotonic() + PATIENCE
    while not all(writer.acknowledged for writer in writers.values()):
        if time.monotonic() > deadline:
            raise RuntimeError("nothing is acknowledged")
        time.sleep(0.01)


def rounds(file_system, count, seconds, debug, folder):
    """Runs the rounds on one kind of file system. Returns what was lost of each topic."""
    data = folder / "data"
    nodes = Nodes(data, debug)
    disks = Disks(folder, data, NAMES, file_system)
    expected = {topic: {} for topic in TOPICS}
    lost = dict.fromkeys(TOPICS, 0)
    try:
        disks.mount()
        nodes.start()
        create_topics(nodes.bootstrap)
        for number in range(1, count + 1):
            writers = {
                topic: Writer(nodes.bootstrap, topic, f"{file_system}-{number}") for topic in TOPICS
            }
            wait_for_first(writers)
            time.sleep(seconds)
            nodes.freeze()
            cut = time.monotonic()
            disks.copy()
            copied = time.monotonic()
            for writer in writers.values():
                writer.stop()
            nodes.kill()
            disks.replace_by_copies()
            replayed = disks.needs_replay()
            disks.mount()
            started = time.monotonic()
            nodes.start()
            ready = time.monotonic()
            line = []
            for topic, writer in writers.items():
                expected[topic].update(writer.acknowledged)
                found = read_back(nodes.bootstrap, topic)
                missing = [place for place, value in expected[topic].items() if found.get(place) != value]
                lost[topic] += len(missing)
                line.append(
                    f"{topic}: {len(writer.acknowledged)} acknowledged, "
                    f"{len(expected[topic])} to be there, {len(missing)} lost"
                )
                # What was lost once is not counted again.
                for place in missing:
                    del expected[topic][place]
            print(
                f"{file_system} round {number}: copied in {(copied - cut) * 1000:.0f} ms, "
                f"{replayed} of {len(NAMES)} journals replayed, ready after {ready - started:.1f} s; "
                + "; ".join(line),
                flush=True,
            )
    except BaseException:
        print("\n".join(nodes.warnings()), file=sys.stderr)
        raise
    finally:
        nodes.kill()
        disks.close()
    return lost


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fs", action="append", choices=["ext4", "xfs"])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--debug", action="store_true")
    arguments = parser.parse_args()
    # Told to end, it still stops the nodes and unmounts the disks.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    verdict = 0
    for file_system in arguments.fs or ["ext4", "xfs"]:
        folder = Path(tempfile.mkdtemp(prefix="ottla-power-loss-"))
        try:
            lost = rounds(file_system, arguments.rounds, arguments.seconds, arguments.debug, folder)
        finally:
            # Nothing is removed from a file system that is still mounted.
            if str(folder) not in Path("/proc/self/mounts").read_text():
                shutil.rmtree(folder)
        if lost["synced"]:
            print(f"{file_system}: {lost['synced']} acknowledged records were LOST")
            verdict = 1
        if not lost["control"]:
            print(f"{file_system}: the control lost nothing: this test would not notice a missing sync")
            verdict = 1
    print("power-loss: " + ("failed" if verdict else "nothing acknowledged was lost; the control lost, as it must"))
    sys.exit(verdict)


if __name__ == "__main__":
    main()

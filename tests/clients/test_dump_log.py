"""Files on disk: Kafka's own dump tool on ours, and `ottla dump-log` on Kafka's."""

import base64
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

import java_tools
from cluster import CODECS, PATIENCE, WaitingTest, ask, create_topic
from own_cluster import OwnCluster
from real_kafka import RealKafka

TOPIC = "dumped"
# The smallest segments, so that there are rolled ones with indexes and snapshots; an entry for every batch.
CONFIG = {"segment.bytes": "1048576", "index.interval.bytes": "1"}
RECORDS = 500
# Compacted as soon as a second has passed.
COMPACTED = CONFIG | {"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0"}


def write(bootstrap, replicas, config):
    """A topic with batches of each codec, from idempotent producers; kinds of records alternate."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    create_topic(TOPIC, replicas=replicas, config=config, client=admin)
    errors = []
    noise = random.Random(1)
    for codec in CODECS:
        settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": codec}
        producer = Producer({**settings, "linger.ms": 50, "log_level": 0})
        for i in range(RECORDS):
            producer.produce(
                TOPIC,
                [base64.b64encode(noise.randbytes(9000)) + b"compressible" * 100, b"", None][i % 3],
                key=[None, f"key {i}".encode()][i % 2],
                partition=0,
                headers=[("h", b"1"), ("h", b"2")] if i % 5 == 0 else None,
                on_delivery=lambda error, _: error and errors.append(error),
            )
            if i % 20 == 19:
                assert producer.flush(PATIENCE) == 0, "not everything was acknowledged in time"
    assert errors == [], errors


def write_table(bootstrap, brokers):
    """A compacted topic, each record of which is replaced, or deleted, by later ones; a batch of each codec
    has some of those that are the last of their keys. What each key says last."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for broker in brokers:
        often = ConfigEntry("log.cleaner.backoff.ms", "100", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.BROKER, str(broker), incremental_configs=[often])
        ask(lambda resource=resource: admin.incremental_alter_configs([resource])[resource])
    create_topic(TOPIC, replicas=len(brokers), config=COMPACTED, client=admin)
    noise = random.Random(2)
    errors = []
    last = {}
    # Of what the first producer writes nothing is left but an empty batch that tells its last sequence.
    for turn, codec in [(0, "zstd"), *enumerate(CODECS)]:
        settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": codec}
        producer = Producer({**settings, "linger.ms": 50, "log_level": 0})
        for i in range(RECORDS):
            if i % len(CODECS) < turn:
                continue
            key = f"key {i}".encode()
            last[key] = [base64.b64encode(noise.randbytes(9000)) + b"compressible" * 100, b"", None][i % 3]
            producer.produce(
                TOPIC,
                last[key],
                key=key,
                partition=0,
                headers=[("h", b"1"), ("codec", codec.encode())],
                on_delivery=lambda error, _: error and errors.append(error),
            )
            if i % 20 == 19:
                assert producer.flush(PATIENCE) == 0, "not everything was acknowledged in time"
    assert errors == [], errors
    return last


def read_table(bootstrap):
    """Every record of the topic, from its beginning to its end: key and value."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.partition.eof": True, "log_level": 0}
    consumer = Consumer({**settings, "enable.auto.commit": False, "auto.offset.reset": "error"})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    found = []
    deadline = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error() is None:
                found.append((message.key(), message.value()))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                return found
            else:
                # The client gets over everything but an offset that is not there.
                assert message.error().code() != KafkaError._AUTO_OFFSET_RESET, message.error()
    finally:
        consumer.close()
    raise AssertionError(f"the end of the topic does not come, after {len(found)} records")


def files_of(folder):
    """The files of a partition that a dump tool reads, by kind."""
    files = {kind: sorted(folder.glob(f"*.{kind}")) for kind in ["log", "index", "timeindex", "snapshot"]}
    assert all(files.values()), f"{folder} lacks a kind of file: {files}"
    return files


def dump_by_kafka(files, *options):
    return java_tools.output("kafka-dump-log", *options, "--files", ",".join(map(str, files)))


def dump_by_ottla(files, *options):
    command = [os.environ["OTTLA_BIN"], "dump-log", *options, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_random_cleanings(folder):
    """Logs as random histories of appends, transactions, deletions, cleanings and crashes leave them: those of the
    storage crate's own property test, a folder for each."""
    root = Path(__file__).resolve().parents[2]
    test = "log::compact::tests::model::a_compacted_log_says_what_the_whole_log_said"
    command = ["cargo", "test", "--quiet", "--locked", "--package", "storage", "--lib", "--", "--exact", test]
    settings = {"OTTLA_CLEANED_SEGMENTS": str(folder), "PROPTEST_CASES": "20"}
    done = subprocess.run(
        command, cwd=root, env=os.environ | settings, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(folder.iterdir())


def records_in(folder):
    """The records of a partition whose broker runs; None while its files change."""
    logs = sorted(folder.glob("*.log"))
    command = [os.environ["OTTLA_BIN"], "dump-log", "--print-data-log", *map(str, logs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        return None
    return [line for line in done.stdout.splitlines() if line.startswith("| ")]


class DumpLogTest(WaitingTest):
    maxDiff = 4000

    def compare(self, folder, segments, records):
        files = files_of(folder)
        self.assertGreaterEqual(len(files["log"]), segments, "too few segments to show anything")
        everything = sum(files.values(), [])
        by_kafka = dump_by_kafka(everything, "--print-data-log")
        for codec in CODECS:
            self.assertIn(f" compresscodec: {codec} ", by_kafka)
        self.assertNotIn("isvalid: false", by_kafka)
        self.assertNotRegex(by_kafka, "(?i)mismatch|corrupt|exception|out of order")
        self.assertEqual(dump_by_ottla(everything, "--print-data-log").splitlines(), by_kafka.splitlines())
        self.assertEqual(by_kafka.count("| offset: "), records)
        return by_kafka

    def test_kafkas_tool_reads_the_files_of_a_stopped_replica(self):
        cluster = OwnCluster()
        self.addCleanup(cluster.close)
        cluster.start()
        write(cluster.bootstrap, 3, CONFIG)
        cluster.shut_down(2)
        self.compare(cluster.data / f"broker-2/{TOPIC}-0", 4, RECORDS * len(CODECS))

    def test_kafkas_tool_reads_what_compaction_has_written(self):
        cluster = OwnCluster()
        self.addCleanup(cluster.close)
        cluster.start()
        brokers = [1, 2, 3]
        last = write_table(cluster.bootstrap, brokers)
        folders = [cluster.data / f"broker-{broker}/{TOPIC}-0" for broker in brokers]

        def is_compacted():
            # Meanwhile, too, each key says what it said last.
            self.assertEqual(dict(read_table(cluster.bootstrap)), last)
            left = [records_in(folder) for folder in folders]
            return left[0] is not None and len(left[0]) == len(last) and left.count(left[0]) == len(left)

        self.wait_until(is_compacted, "the replicas do not come to the same record of each key")
        cluster.shut_down(2)
        dumped = self.compare(folders[1], 3, len(last))
        self.assertIn(" count: 0 ", dumped)
        self.assertIn("deleteHorizonMs: OptionalLong[", dumped)

    def test_kafkas_tool_reads_whatever_random_cleanings_leave(self):
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for log in write_random_cleanings(Path(folder)):
                # Of the active segment only the batches are on disk, and here it has none.
                for segment in sorted(log.glob("*.log"))[:-1]:
                    files += [segment, segment.with_suffix(".index"), segment.with_suffix(".timeindex")]
                files += sorted(log.glob("*.snapshot"))
            self.assertGreater(len(files), 20, "too few files to show anything")
            by_kafka = dump_by_kafka(files, "--deep-iteration")
            self.assertNotIn("isvalid: false", by_kafka)
            self.assertNotRegex(by_kafka, "(?i)mismatch|corrupt|exception|out of order")
            self.assertIn("| offset: ", by_kafka)
            self.assertEqual(dump_by_ottla(files, "--deep-iteration").splitlines(), by_kafka.splitlines())

    def test_ours_reads_the_files_of_kafka(self):
        kafka = RealKafka()
        self.addCleanup(kafka.close)
        kafka.start()
        write(kafka.bootstrap, 1, CONFIG)
        kafka.signal(1, signal.SIGTERM)
        self.compare(kafka.log_folder(1) / f"{TOPIC}-0", 4, RECORDS * len(CODECS))

"""Files on disk: Kafka's own dump tool on ours, and `ottla dump-log` on Kafka's."""

import base64
import os
import random
import signal
import subprocess

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

import java_tools
from cluster import CODECS, PATIENCE, WaitingTest, create_topic
from own_cluster import OwnCluster
from real_kafka import RealKafka

TOPIC = "dumped"
# The smallest segments, so that there are rolled ones with indexes and snapshots; an entry for every batch.
CONFIG = {"segment.bytes": "1048576", "index.interval.bytes": "1"}
RECORDS = 500


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


class DumpLogTest(WaitingTest):
    maxDiff = 4000

    def compare(self, folder):
        files = files_of(folder)
        self.assertGreater(len(files["log"]), 3, "too few segments to show anything")
        everything = sum(files.values(), [])
        by_kafka = dump_by_kafka(everything, "--print-data-log")
        for codec in CODECS:
            self.assertIn(f" compresscodec: {codec} ", by_kafka)
        self.assertNotIn("isvalid: false", by_kafka)
        self.assertNotRegex(by_kafka, "(?i)mismatch|corrupt|exception|out of order")
        self.assertEqual(dump_by_ottla(everything, "--print-data-log").splitlines(), by_kafka.splitlines())
        self.assertEqual(by_kafka.count("| offset: "), RECORDS * len(CODECS))

    def test_kafkas_tool_reads_the_files_of_a_stopped_replica(self):
        cluster = OwnCluster()
        self.addCleanup(cluster.close)
        cluster.start()
        write(cluster.bootstrap, 3, CONFIG)
        cluster.shut_down(2)
        self.compare(cluster.data / f"broker-2/{TOPIC}-0")

    def test_ours_reads_the_files_of_kafka(self):
        kafka = RealKafka()
        self.addCleanup(kafka.close)
        kafka.start()
        write(kafka.bootstrap, 1, CONFIG)
        kafka.signal(1, signal.SIGTERM)
        self.compare(kafka.log_folder(1) / f"{TOPIC}-0")

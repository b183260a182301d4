"""kafka-python."""

import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition, TopicPartitionReplica
from kafka.errors import (
    LogDirNotFoundError,
    MessageSizeTooLargeError,
    NoError,
    TransactionalIdAuthorizationFailedError,
)

from cluster import BOOTSTRAP, CODECS, LARGEST_VALUE, PATIENCE, ClusterTest, create_topic, recreate_topic

CREATE_TIME = 0
SERVERS = BOOTSTRAP.split(",")


def producer(**config):
    return KafkaProducer(bootstrap_servers=SERVERS, acks="all", **config)


class KafkaPythonTest(ClusterTest):
    def setUp(self):
        self.readers = []

    def tearDown(self):
        for reader in self.readers:
            reader.close()

    def reader(self, topic):
        reader = KafkaConsumer(
            bootstrap_servers=SERVERS, enable_auto_commit=False, auto_offset_reset="earliest", check_crcs=True
        )
        self.readers.append(reader)
        reader.assign([TopicPartition(topic, 0)])
        return reader

    def read(self, topic, count):
        return self.poll(self.reader(topic), count)

    def poll(self, reader, count):
        records = []
        deadline = time.monotonic() + PATIENCE
        while len(records) < count:
            self.assertLess(time.monotonic(), deadline, f"{len(records)} of {count} records came")
            for batch in reader.poll(timeout_ms=500).values():
                records.extend(batch)
        return records

    def test_each_codec(self):
        values = [f"{i} ".encode() * 50 for i in range(300)]
        for codec in CODECS:
            with self.subTest(codec=codec):
                topic = create_topic()
                writer = producer(compression_type=None if codec == "none" else codec, linger_ms=20)
                futures = [writer.send(topic, value, partition=0) for value in values]
                self.assertEqual([f.get(PATIENCE).offset for f in futures], list(range(len(values))))
                writer.close()
                self.assertEqual([r.value for r in self.read(topic, len(values))], values)

    def test_log_directories(self):
        topic = create_topic()
        writer = producer()
        writer.send(topic, b"v", partition=0).get(PATIENCE)
        writer.close()
        admin = KafkaAdminClient(bootstrap_servers=SERVERS)
        self.addCleanup(admin.close)
        described = admin.describe_log_dirs({topic: [0]})
        self.assertEqual(len(described), 3)
        for broker in described:
            [directory] = broker["log_dirs"]
            self.assertEqual(directory["error_code"], 0)
            [partition] = directory["topics"][0]["partitions"]
            self.assertGreater(partition["partition_size"], 0)
            self.assertGreater(directory["total_bytes"], directory["usable_bytes"])
            here = TopicPartitionReplica(topic, 0, broker["broker"])
            self.assertIs(admin.alter_replica_log_dirs({here: directory["log_dir"]})[here], NoError)
            self.assertIs(admin.alter_replica_log_dirs({here: "/no/such/disk"})[here], LogDirNotFoundError)

    def test_nulls_and_headers(self):
        topic = create_topic()
        headers = [("h", b"1"), ("h", b"2"), ("empty", b"")]
        writer = producer()
        sent = [(None, b""), (b"k", None), (b"", b"v"), (b"", b"")]
        for key, value in sent:
            writer.send(topic, value=value, key=key, headers=headers, partition=0).get(PATIENCE)
        writer.close()
        records = self.read(topic, len(sent))
        self.assertEqual([(r.key, r.value) for r in records], sent)
        self.assertEqual([list(r.headers) for r in records], [headers] * len(sent))

    def test_the_largest_record(self):
        topic = create_topic()
        largest = b"x" * LARGEST_VALUE
        # The client's own limit is lower than the topic's.
        writer = producer(max_request_size=2_000_000)
        with self.assertRaises(MessageSizeTooLargeError):
            writer.send(topic, largest + b"x", partition=0).get(PATIENCE)
        writer.close()
        # Another producer: after a refusal kafka-python's idempotent one (its default) fails every send.
        writer = producer(max_request_size=2_000_000)
        self.assertEqual(writer.send(topic, largest, partition=0).get(PATIENCE).offset, 0)
        writer.close()
        self.assertEqual(self.read(topic, 1)[0].value, largest)

    def test_offsets_by_time(self):
        # Its records are old: retention would have them.
        topic = create_topic(config={"retention.ms": "-1"})
        start = 1_700_000_000_000
        writer = producer()
        for i in range(5):
            writer.send(topic, b"v", partition=0, timestamp_ms=start + i * 1000).get(PATIENCE)
        writer.close()
        partition = TopicPartition(topic, 0)
        reader = self.reader(topic)
        stamps = [(record.timestamp_type, record.timestamp) for record in self.read(topic, 5)]
        self.assertEqual(stamps, [(CREATE_TIME, start + i * 1000) for i in range(5)])
        self.assertEqual(reader.beginning_offsets([partition]), {partition: 0})
        self.assertEqual(reader.end_offsets([partition]), {partition: 5})
        found = reader.offsets_for_times({partition: start + 2500})[partition]
        self.assertEqual((found.offset, found.timestamp), (3, start + 3000))
        self.assertIsNone(reader.offsets_for_times({partition: start + 9000})[partition])
        reader.seek(partition, found.offset)
        self.assertEqual(self.poll(reader, 1)[0].timestamp, start + 3000)

    def test_idempotence(self):
        topic = create_topic()
        writer = producer(enable_idempotence=True, linger_ms=1)
        values = [str(i).encode() for i in range(1000)]
        futures = [writer.send(topic, value, partition=0) for value in values]
        self.assertEqual([f.get(PATIENCE).offset for f in futures], list(range(len(values))))
        writer.close()
        self.assertEqual([r.value for r in self.read(topic, len(values))], values)

    def test_a_topic_deleted_and_created_again_under_its_users(self):
        topic = create_topic()
        writer = producer()
        for _ in range(3):
            writer.send(topic, b"old", partition=0).get(PATIENCE)
        reader = self.reader(topic)
        self.poll(reader, 3)
        recreate_topic(topic)
        self.assertEqual(writer.send(topic, b"new", partition=0).get(PATIENCE).offset, 0)
        writer.close()
        # The reader stood at offset 3 of the old topic, which the new one does not have.
        self.assertEqual(self.poll(reader, 1)[0].value, b"new", "the same reader goes on")
        self.assertEqual(self.read(topic, 1)[0].value, b"new", "nothing of the old topic is there")

    def test_a_transactional_producer_fails_at_once(self):
        writer = producer(transactional_id="t")
        # Not KafkaTimeoutError, which is what it says when it hung.
        with self.assertRaises(TransactionalIdAuthorizationFailedError):
            writer.init_transactions()
        writer.close(timeout=1)

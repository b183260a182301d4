"""kafka-python."""

import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError

from cluster import BOOTSTRAP, PATIENCE, ClusterTest, create_topic

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
        reader = self.reader(topic)
        records = []
        deadline = time.monotonic() + PATIENCE
        while len(records) < count:
            self.assertLess(time.monotonic(), deadline, f"{len(records)} of {count} records came")
            for batch in reader.poll(timeout_ms=500).values():
                records.extend(batch)
        return records

    def test_each_codec(self):
        values = [f"{i} ".encode() * 50 for i in range(300)]
        for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
            with self.subTest(codec=codec):
                topic = create_topic()
                writer = producer(compression_type=codec, linger_ms=20)
                futures = [writer.send(topic, value, partition=0) for value in values]
                self.assertEqual([f.get(PATIENCE).offset for f in futures], list(range(len(values))))
                writer.close()
                self.assertEqual([r.value for r in self.read(topic, len(values))], values)

    def test_nulls_and_headers(self):
        topic = create_topic()
        headers = [("h", b"1"), ("h", b"2"), ("empty", b"")]
        writer = producer()
        sent = [(None, b""), (b"k", None), (b"", b"v")]
        for key, value in sent:
            writer.send(topic, value=value, key=key, headers=headers, partition=0).get(PATIENCE)
        writer.close()
        records = self.read(topic, len(sent))
        self.assertEqual([(r.key, r.value) for r in records], sent)
        self.assertEqual([list(r.headers) for r in records], [headers] * len(sent))

    def test_a_record_that_is_too_large(self):
        topic = create_topic(config={"max.message.bytes": "10000"})
        writer = producer()
        with self.assertRaises(MessageSizeTooLargeError):
            writer.send(topic, b"x" * 10_000, partition=0).get(PATIENCE)
        writer.close()
        # Another producer: after a refusal kafka-python's idempotent one (its default) fails every send.
        writer = producer()
        self.assertEqual(writer.send(topic, b"x" * 9_000, partition=0).get(PATIENCE).offset, 0)
        writer.close()

    def test_offsets_by_time(self):
        topic = create_topic()
        start = 1_700_000_000_000
        writer = producer()
        for i in range(5):
            writer.send(topic, b"v", partition=0, timestamp_ms=start + i * 1000).get(PATIENCE)
        writer.close()
        partition = TopicPartition(topic, 0)
        reader = self.reader(topic)
        self.assertEqual(reader.beginning_offsets([partition]), {partition: 0})
        self.assertEqual(reader.end_offsets([partition]), {partition: 5})
        found = reader.offsets_for_times({partition: start + 2500})[partition]
        self.assertEqual((found.offset, found.timestamp), (3, start + 3000))
        self.assertIsNone(reader.offsets_for_times({partition: start + 9000})[partition])

    def test_a_transactional_producer_fails_at_once(self):
        began = time.monotonic()
        writer = producer(transactional_id="t")
        with self.assertRaises(KafkaError):
            writer.init_transactions()
        self.assertLess(time.monotonic() - began, PATIENCE / 2, "it hung")
        writer.close(timeout=1)

"""confluent-kafka, which is librdkafka."""

import time

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from cluster import BOOTSTRAP, CODECS, LARGEST_VALUE, PATIENCE, ClusterTest, create_topic, recreate_topic


class Delivery:
    """Collects delivery reports."""

    def __init__(self):
        self.errors = []
        self.messages = []

    def __call__(self, error, message):
        (self.errors if error else self.messages).append(error or message)


def producer(**config):
    return Producer({"bootstrap.servers": BOOTSTRAP, "acks": "all", **config})


def consumer(topic, offset=OFFSET_BEGINNING, **config):
    reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "unused", "enable.auto.commit": False, **config})
    reader.assign([TopicPartition(topic, 0, offset)])
    return reader


class LibrdkafkaTest(ClusterTest):
    def send(self, writer, topic, records):
        """Produces (keyword arguments of produce) to partition 0 and waits for every acknowledgement."""
        delivery = Delivery()
        for record in records:
            writer.produce(topic, partition=0, on_delivery=delivery, **record)
        self.assertEqual(writer.flush(PATIENCE), 0, "not everything was acknowledged in time")
        self.assertEqual(delivery.errors, [])
        return delivery.messages

    def read(self, reader, count, passing=()):
        """As many messages; errors in `passing` may come between."""
        messages = []
        deadline = time.monotonic() + PATIENCE
        while len(messages) < count:
            self.assertLess(time.monotonic(), deadline, f"{len(messages)} of {count} records came")
            message = reader.poll(1.0)
            if message is None or (message.error() and message.error().code() in passing):
                continue
            self.assertIsNone(message.error())
            messages.append(message)
        return messages

    def test_each_codec(self):
        values = [f"{i} ".encode() * 50 for i in range(500)]
        for codec in CODECS:
            with self.subTest(codec=codec):
                topic = create_topic()
                writer = producer(**{"compression.type": codec, "linger.ms": 20})
                self.send(writer, topic, [{"value": value} for value in values])
                reader = consumer(topic, **{"check.crcs": True})
                messages = self.read(reader, len(values))
                self.assertEqual([m.value() for m in messages], values)
                self.assertEqual([m.offset() for m in messages], list(range(len(values))))
                reader.close()

    def test_nulls_and_headers(self):
        topic = create_topic()
        headers = [("h", b"1"), ("other", None), ("h", b"2"), ("empty", b"")]
        records = [
            {"key": None, "value": None},
            {"key": b"", "value": b""},
            {"key": b"k", "value": None},
            {"key": None, "value": b"v"},
            {"key": b"k", "value": b"v", "headers": headers},
        ]
        self.send(producer(), topic, records)
        reader = consumer(topic)
        messages = self.read(reader, len(records))
        reader.close()
        got = [(m.key(), m.value()) for m in messages]
        self.assertEqual(got, [(r["key"], r["value"]) for r in records])
        self.assertEqual(messages[-1].headers(), headers, "order and repetition are kept")
        self.assertIsNone(messages[0].headers())

    def test_the_largest_record(self):
        topic = create_topic()
        # The client's own limit is lower than the topic's.
        writer = producer(**{"message.max.bytes": 2_000_000})
        largest = b"x" * LARGEST_VALUE
        self.send(writer, topic, [{"value": largest}])
        delivery = Delivery()
        writer.produce(topic, largest + b"x", partition=0, on_delivery=delivery)
        self.assertEqual(writer.flush(PATIENCE), 0)
        self.assertEqual([e.code() for e in delivery.errors], [KafkaError.MSG_SIZE_TOO_LARGE])
        # A consumer that asks for less than the record gets it all the same.
        reader = consumer(topic, **{"fetch.message.max.bytes": 1000})
        self.assertEqual(self.read(reader, 1)[0].value(), largest)
        reader.close()

    def test_timestamps_and_seek_by_time(self):
        # Its records are old: retention would have them.
        topic = create_topic(config={"retention.ms": "-1"})
        start = 1_700_000_000_000
        writer = producer()
        for i in range(10):
            self.send(writer, topic, [{"value": str(i), "timestamp": start + i * 1000}])
        reader = consumer(topic)
        stamps = [m.timestamp() for m in self.read(reader, 10)]
        self.assertEqual(stamps, [(TIMESTAMP_CREATE_TIME, start + i * 1000) for i in range(10)])
        for at, expected in [(0, 0), (start + 4000, 4), (start + 4001, 5), (start + 9000, 9)]:
            [found] = reader.offsets_for_times([TopicPartition(topic, 0, at)], timeout=PATIENCE)
            self.assertEqual(found.offset, expected, f"the first record at or after {at}")
        self.assertEqual(reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE), (0, 10))
        reader.seek(TopicPartition(topic, 0, 4))
        self.assertEqual(self.read(reader, 1)[0].value(), b"4")
        reader.close()

    def test_log_append_time(self):
        topic = create_topic(config={"message.timestamp.type": "LogAppendTime"})
        before = time.time_ns() // 1_000_000
        [sent] = self.send(producer(), topic, [{"value": b"v", "timestamp": 1000}])
        reader = consumer(topic)
        [message] = self.read(reader, 1)
        reader.close()
        kind, stamp = message.timestamp()
        self.assertEqual(kind, TIMESTAMP_LOG_APPEND_TIME)
        self.assertGreaterEqual(stamp, before)
        self.assertEqual(sent.timestamp(), message.timestamp())

    def test_idempotence(self):
        topic = create_topic()
        writer = producer(**{"enable.idempotence": True, "linger.ms": 1})
        values = [str(i).encode() for i in range(2000)]
        sent = self.send(writer, topic, [{"value": value} for value in values])
        self.assertEqual([m.offset() for m in sent], list(range(len(values))))
        reader = consumer(topic)
        self.assertEqual([m.value() for m in self.read(reader, len(values))], values)
        reader.close()

    def test_a_topic_deleted_and_created_again_under_its_users(self):
        topic = create_topic()
        writer = producer(**{"topic.metadata.refresh.interval.ms": 1000})
        self.send(writer, topic, [{"value": b"old"}] * 3)
        reader = consumer(topic, **{"auto.offset.reset": "earliest", "topic.metadata.refresh.interval.ms": 1000})
        self.read(reader, 3)
        recreate_topic(topic)
        missing = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
        # The same producer goes on; its metadata is of the old topic until it is told.
        delivery = Delivery()

        def delivered():
            try:
                writer.produce(topic, b"new", partition=0, on_delivery=delivery)
            except KafkaException as refused:
                # Its metadata may still be of the moment between.
                self.assertIn(refused.args[0].code(), missing)
            writer.flush(PATIENCE)
            return delivery.messages

        messages = self.wait_until(delivered, "nothing reaches the new topic")
        self.assertEqual(messages[0].offset(), 0, "the new topic begins at 0")
        # The reader stood at offset 3 of the old topic, which the new one does not have.
        [message] = self.read(reader, 1, passing=missing)
        self.assertEqual(message.value(), b"new", "the same reader goes on")
        reader.close()
        reader = consumer(topic)
        self.assertEqual(self.read(reader, 1)[0].value(), b"new", "nothing of the old topic is there")
        reader.close()

    def test_an_offset_out_of_range_is_reset(self):
        topic = create_topic()
        self.send(producer(), topic, [{"value": b"v"}])
        reader = consumer(topic, 99, **{"auto.offset.reset": "earliest"})
        self.assertEqual(self.read(reader, 1)[0].offset(), 0)
        reader.close()

    def test_a_transactional_producer_fails_at_once(self):
        writer = producer(**{"transactional.id": "t"})
        with self.assertRaises(KafkaException) as raised:
            writer.init_transactions(PATIENCE)
        # Not _TIMED_OUT, which is what it says when it hung.
        error = raised.exception.args[0]
        self.assertEqual(error.code(), KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        self.assertFalse(error.retriable())

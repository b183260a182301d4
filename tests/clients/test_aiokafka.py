"""aiokafka: its producer, its consumer and its ways to commit. Its groups are in test_group_scenarios."""

import asyncio
import unittest

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from cluster import BOOTSTRAP, PATIENCE, create_topic, unused_name

# The codecs for which it needs nothing but what kafka-python needs too.
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
CREATE_TIME = 0


class AiokafkaTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        # The test case turns on what tells of every slow step, as here on a busy machine.
        asyncio.get_running_loop().set_debug(False)

    async def producer(self, **config):
        producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", **config)
        await producer.start()
        self.addAsyncCleanup(producer.stop)
        return producer

    async def consumer(self, *topics, **config):
        settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False} | config
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, **settings)
        await consumer.start()
        self.addAsyncCleanup(consumer.stop)
        return consumer

    async def read(self, consumer, count):
        async def all_of_them():
            return [await consumer.getone() for _ in range(count)]

        return await asyncio.wait_for(all_of_them(), PATIENCE)

    async def fill(self, topic, count, **config):
        producer = await self.producer(**config)
        for number in range(count):
            await producer.send_and_wait(topic, str(number).encode(), partition=0)

    async def test_each_codec(self):
        values = [f"{number} ".encode() * 50 for number in range(100)]
        for codec in CODECS:
            with self.subTest(codec=codec):
                topic = create_topic()
                producer = await self.producer(compression_type=codec, enable_idempotence=True, linger_ms=20)
                sent = [await producer.send(topic, value, partition=0) for value in values]
                self.assertEqual([(await done).offset for done in sent], list(range(len(values))))
                reader = await self.consumer(topic)
                self.assertEqual([record.value for record in await self.read(reader, len(values))], values)

    async def test_keys_headers_and_timestamps(self):
        topic, start = create_topic(config={"retention.ms": "-1"}), 1_700_000_000_000
        producer, headers = await self.producer(), [("h", b"1"), ("h", b"2"), ("empty", b"")]
        sent = [(None, b""), (b"k", None), (b"", b"v")]
        for number, (key, value) in enumerate(sent):
            stamp = start + 1000 * number
            await producer.send_and_wait(topic, value, key=key, headers=headers, partition=0, timestamp_ms=stamp)
        reader, partition = await self.consumer(), TopicPartition(topic, 0)
        reader.assign([partition])
        records = await self.read(reader, len(sent))
        self.assertEqual([(record.key, record.value) for record in records], sent)
        self.assertEqual([list(record.headers) for record in records], [headers] * len(sent))
        stamps = [(record.timestamp_type, record.timestamp) for record in records]
        self.assertEqual(stamps, [(CREATE_TIME, start + 1000 * number) for number in range(len(sent))])
        self.assertEqual(await reader.beginning_offsets([partition]), {partition: 0})
        self.assertEqual(await reader.end_offsets([partition]), {partition: 3})
        found = (await reader.offsets_for_times({partition: start + 500}))[partition]
        self.assertEqual((found.offset, found.timestamp), (1, start + 1000))
        reader.seek(partition, found.offset)
        self.assertEqual((await self.read(reader, 1))[0].value, None)
        await reader.seek_to_end(partition)
        self.assertEqual(await reader.position(partition), 3)

    async def test_commits(self):
        topic, group = create_topic(), unused_name()
        await self.fill(topic, 10)
        reader, partition = await self.consumer(topic, group_id=group), TopicPartition(topic, 0)
        self.assertIsNone(await reader.committed(partition))
        await self.read(reader, 4)
        # What was read; an offset with a note; and one that is in flight while the consumer goes on.
        await reader.commit()
        self.assertEqual(await reader.committed(partition), 4)
        await reader.commit({partition: (2, "a note")})
        self.assertEqual(await reader.committed(partition), 2)
        in_flight = asyncio.create_task(reader.commit({partition: 7}))
        await self.read(reader, 1)
        await in_flight
        self.assertEqual(await reader.committed(partition), 7)
        await reader.seek_to_committed(partition)
        self.assertEqual((await self.read(reader, 1))[0].offset, 7)
        # It leaves; who comes next goes on behind what is committed.
        await reader.stop()
        successor = await self.consumer(topic, group_id=group)
        self.assertEqual([record.offset for record in await self.read(successor, 3)], [7, 8, 9])

    async def test_what_it_read_is_committed_when_it_stops(self):
        topic, group = create_topic(), unused_name()
        await self.fill(topic, 10)
        reader = await self.consumer(topic, group_id=group, enable_auto_commit=True)
        await self.read(reader, 6)
        await reader.stop()
        successor = await self.consumer(topic, group_id=group)
        self.assertEqual((await self.read(successor, 1))[0].offset, 6)

    async def test_administration(self):
        topic, group = create_topic(partitions=2), unused_name()
        await self.fill(topic, 3)
        reader = await self.consumer(topic, group_id=group, client_id="someone")
        await self.read(reader, 3)
        await reader.commit()
        admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
        await admin.start()
        self.addAsyncCleanup(admin.close)
        self.assertIn((group, "consumer"), [tuple(found)[:2] for found in await admin.list_consumer_groups()])
        offsets = await admin.list_consumer_group_offsets(group)
        self.assertEqual(offsets[TopicPartition(topic, 0)].offset, 3)
        [answer] = await admin.describe_consumer_groups([group])
        self.assertIn("someone", str(answer))
        self.assertIn("Stable", str(answer))

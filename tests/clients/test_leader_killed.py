"""A leader killed under load, over and over: idempotent producers of librdkafka and of the Java client."""

import json
import threading

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

import java_tools
from cluster import PATIENCE, QUIET, WaitingTest, create_topic
from own_cluster import OwnCluster

KILLS = 6
# Acknowledgements that each producer must get between one kill and the next.
ACKS_BETWEEN_KILLS = 200


class LibrdkafkaLoad:
    """Produces 0, 1, 2, … from a thread until it is stopped."""

    name = "load-librdkafka"

    def __init__(self, bootstrap):
        self.acknowledged = {}
        self.errors = []
        self._stopping = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "log_level": QUIET,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        self.sent = 0
        while not self._stopping.is_set():
            value = str(self.sent)
            self._producer.produce(self.name, value, partition=0, on_delivery=self._delivered)
            self.sent += 1
            # Serves reports, and keeps the load at some hundreds of records a second.
            self._producer.poll(0.002)

    def _delivered(self, error, message):
        if error:
            self.errors.append(str(error))
        else:
            self.acknowledged[int(message.value())] = message.offset()

    def stop(self):
        """Returns how many records were sent, once every one of them was reported."""
        self._stopping.set()
        self._thread.join()
        if left := self._producer.flush(PATIENCE):
            self.errors.append(f"{left} records were never reported")
        return self.sent


class JavaLoad:
    """kafka-verifiable-producer: 0, 1, 2, … and a line of JSON for every acknowledgement."""

    name = "load-java"

    def __init__(self, bootstrap):
        # The tool forbids retries unless told otherwise; these are the Java client's own defaults.
        config = {"retries": 2147483647, "enable.idempotence": "true", "linger.ms": 2}
        place = ["--bootstrap-server", bootstrap, "--topic", self.name, "--throughput", "400"]
        self.acknowledged = {}
        self.errors = []
        self._tool = java_tools.Running("kafka-verifiable-producer", *place, config=config, each=self._take)

    def _take(self, line):
        event = json.loads(line)
        if event["name"] == "producer_send_success":
            self.acknowledged[int(event["value"])] = event["offset"]
        elif event["name"] == "producer_send_error":
            self.errors.append(line)
        elif event["name"] == "tool_data":
            self._sent = event["sent"]

    def stop(self):
        """Returns how many records were sent, once every one of them was reported."""
        assert self._tool.end(), f"it did not end: {self._tool.log[-10:]}"
        return self._sent


class LibrdkafkaReader:
    """A consumer that follows a partition while its leaders die, and keeps what it reads."""

    def __init__(self, bootstrap, topic):
        self.values = []
        self.errors = []
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "log_level": QUIET}
        )
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stopping.is_set():
            for message in self._consumer.consume(1000, timeout=0.2):
                if message.error():
                    self.errors.append(str(message.error()))
                else:
                    self.values.append(int(message.value()))

    def stop(self):
        self._stopping.set()
        self._thread.join()
        self._consumer.close()


class JavaReader:
    """The same with kafka-console-consumer."""

    def __init__(self, bootstrap, topic):
        place = ["--bootstrap-server", bootstrap, "--topic", topic, "--partition", "0", "--offset", "earliest"]
        self.values = []
        self._tool = java_tools.Running(
            "kafka-console-consumer", *place, each=lambda line: self.values.append(int(line))
        )
        self.errors = self._tool.log

    def stop(self):
        self._tool.end()


class LeaderKilledTest(WaitingTest):
    def setUp(self):
        self.cluster = OwnCluster()
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": QUIET})

    def partition(self, topic):
        """What a broker says of the topic's partition; None where the broker that was asked is the one that died."""
        try:
            return self.admin.list_topics(topic, timeout=5.0).topics[topic].partitions.get(0)
        except KafkaException:
            return None

    def leader(self, topic):
        found = self.partition(topic)
        return found.leader if found and found.leader != -1 else None

    def is_whole(self, topic):
        found = self.partition(topic)
        return found and len(found.isrs) == 3

    def read_all(self, topic, end):
        reader = Consumer(
            {"bootstrap.servers": self.cluster.bootstrap, "group.id": "unused", "enable.auto.commit": False}
        )
        self.addCleanup(reader.close)
        reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        _, high = reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE)
        values = []

        def all_read():
            for message in reader.consume(1000, timeout=1.0):
                self.assertIsNone(message.error())
                self.assertEqual(message.offset(), len(values), "an offset was skipped")
                values.append(int(message.value()))
            return len(values) >= high

        self.wait_until(all_read, f"{topic} holds {high} records and {end} were sent")
        return values

    def test_a_leader_killed_over_and_over(self):
        loads = [LibrdkafkaLoad.name, JavaLoad.name]
        for name in loads:
            create_topic(name, client=self.admin)
        producers = [LibrdkafkaLoad(self.cluster.bootstrap), JavaLoad(self.cluster.bootstrap)]
        # Each client reads what the other one writes.
        readers = {
            JavaLoad.name: LibrdkafkaReader(self.cluster.bootstrap, JavaLoad.name),
            LibrdkafkaLoad.name: JavaReader(self.cluster.bootstrap, LibrdkafkaLoad.name),
        }
        for reader in readers.values():
            self.addCleanup(reader.stop)
        sent = {}
        try:
            for kill in range(KILLS):
                self.wait_for_acknowledgements(producers)
                # Their leaders in turn; where one broker leads both, it dies under both.
                topic = producers[kill % 2].name
                leader = self.wait_until(lambda: self.leader(topic), "nobody leads")
                self.cluster.kill(leader)
                self.wait_until(lambda: self.leader(topic) not in (leader, None), "nobody leads")
                self.wait_for_acknowledgements(producers)
                self.cluster.start()
                for name in loads:
                    self.wait_until(lambda: self.is_whole(name), f"{name}: a replica stays out")
        finally:
            for producer in producers:
                sent[producer.name] = producer.stop()
        for producer in producers:
            with self.subTest(client=producer.name):
                self.assertEqual(producer.errors, [])
                self.assertGreaterEqual(sent[producer.name], KILLS * 2 * ACKS_BETWEEN_KILLS)
                values = self.read_all(producer.name, sent[producer.name])
                self.assertEqual(values, list(range(sent[producer.name])), "lost, doubled or reordered")
                # What is at its offset is the record that was acknowledged there.
                self.assertEqual(producer.acknowledged, {value: value for value in values})
                reader = readers[producer.name]
                self.wait_until(lambda: len(reader.values) >= len(values), f"the reader stopped: {reader.errors}")
                self.assertEqual(reader.values, values, "read under way: lost, doubled or reordered")
        # A reader asks a new leader where the epoch ends that it has read last, before it reads on.
        self.assertGreater(self.cluster.requests()["OffsetForLeaderEpoch"], 0)

    def wait_for_acknowledgements(self, producers):
        goals = [(producer, len(producer.acknowledged) + ACKS_BETWEEN_KILLS) for producer in producers]
        for producer, goal in goals:
            self.wait_until(
                lambda: len(producer.acknowledged) >= goal,
                f"{producer.name}: no acknowledgements; errors: {producer.errors[:3]}",
            )



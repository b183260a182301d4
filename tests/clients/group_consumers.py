"""Consumers of librdkafka in the test's own process, as the members of one group, which the test drives step by step."""

from confluent_kafka import Consumer, Producer, TopicPartition

from cluster import BOOTSTRAP, PATIENCE, QUIET, ClusterTest, create_topic, unused_name

PARTITIONS = 4
# In the protocol of KIP-848 times are the broker's business: librdkafka takes none.
_CLASSIC_TIMES = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}


def fill(topic, count, first=0):
    """Produces the numbers from `first` on, round the partitions."""
    writer = Producer({"bootstrap.servers": BOOTSTRAP, "acks": "all", "enable.idempotence": True})
    errors = []
    for number in range(first, first + count):
        writer.produce(
            topic,
            str(number),
            partition=number % PARTITIONS,
            on_delivery=lambda error, _: errors.append(error) if error else None,
        )
    assert writer.flush(PATIENCE) == 0 and not errors, errors


def committed(group, topic):
    """The group's offsets, by partition."""
    reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "log_level": QUIET})
    asked = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    try:
        return [position.offset for position in reader.committed(asked, timeout=PATIENCE)]
    finally:
        reader.close()


class ConsumersTest(ClusterTest):
    """A test with a topic and a group of its own, whose members speak `protocol`."""

    protocol = "classic"

    def setUp(self):
        self.topic = create_topic(partitions=PARTITIONS)
        self.group = unused_name()
        self._open = []

    def tearDown(self):
        for consumer in self._open:
            consumer.close()

    def join(self, *topics, protocol=None, **config):
        """A member that is subscribed, to the test's topic where no other is named; settings have `_` for `.`."""
        protocol = protocol or self.protocol
        settings = {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": self.group,
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": QUIET,
        }
        settings |= _CLASSIC_TIMES if protocol == "classic" else {}
        # A callback keeps its name.
        settings |= {name if callable(value) else name.replace("_", "."): value for name, value in config.items()}
        consumer = Consumer(settings)
        self._open.append(consumer)
        consumer.subscribe(list(topics or [self.topic]))
        return consumer

    def leave(self, consumer):
        self._open.remove(consumer)
        consumer.close()

    def take(self, consumer, count):
        """Polls until `count` records came."""
        taken = []

        def enough():
            message = consumer.poll(0.2)
            if message is not None:
                self.assertIsNone(message.error())
                taken.append(int(message.value()))
            return len(taken) >= count

        self.wait_until(enough, lambda: f"{len(taken)} of {count} records came")
        return taken

    def settle(self, *shares):
        """Polls the consumers until each has as many partitions as its share says. No two ever have the same."""

        def settled():
            for consumer, _ in shares:
                consumer.poll(0.05)
            return all(len(consumer.assignment()) == share for consumer, share in shares)

        self.wait_until(settled, f"not shared as {[share for _, share in shares]}")
        owned = [(p.topic, p.partition) for consumer, _ in shares for p in consumer.assignment()]
        self.assertEqual(len(owned), len(set(owned)), "a partition has two owners")

    def committed(self):
        return committed(self.group, self.topic)

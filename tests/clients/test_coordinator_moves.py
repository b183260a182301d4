"""A group's coordinator moves just when a member has got its partitions: the member reads them, from where the group was.

It has yet to ask what is committed, and asks the broker that coordinates no longer. librdkafka (up to 2.16, its issue 5586)
reads nothing until the next rebalance where it is told NOT_COORDINATOR then.
"""

import contextlib

from confluent_kafka import Consumer, ElectionType, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cluster import PATIENCE, QUIET, WaitingTest, create_topic
from coordinator_killer import partition_of
from own_cluster import OwnCluster

_GROUP = _TOPIC = "moved"
_RECORDS, _COMMITTED = 10, 4
# Of the groups' topic, the partition whose leader is the coordinator.
_COORDINATED = TopicPartition("__consumer_offsets", partition_of(_GROUP))


class CoordinatorMovesTest(WaitingTest):
    def setUp(self):
        # Leaders move when the test says so.
        self.cluster = OwnCluster(settings=["auto.leader.rebalance.enable=false"])
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.admin = self.client_of(self.cluster.bootstrap)

    @staticmethod
    def client_of(bootstrap):
        return AdminClient({"bootstrap.servers": bootstrap, "log_level": QUIET})

    def coordinated(self, client):
        """The partition that the coordinator leads, as a client is told; none where nobody answers."""
        try:
            topic = client.list_topics(_COORDINATED.topic, timeout=10).topics[_COORDINATED.topic]
        except KafkaException:
            return None
        return topic.partitions.get(_COORDINATED.partition)

    def coordinator(self, client=None):
        part = self.coordinated(client or self.admin)
        return part.leader if part and part.leader > 0 else None

    def coordinator_as_told_by(self, broker):
        # One that is new asks its bootstrap server first.
        return self.coordinator(self.client_of(self.cluster.bootstrap.split(",")[broker - 1]))

    def prepare(self):
        """Records, of which the group has committed some."""
        create_topic(_TOPIC, client=self.admin)
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "log_level": QUIET})
        for number in range(_RECORDS):
            producer.produce(_TOPIC, str(number), partition=0)
        self.assertEqual(producer.flush(PATIENCE), 0)
        committer = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": _GROUP, "log_level": QUIET})

        def is_committed():
            try:
                done = committer.commit(offsets=[TopicPartition(_TOPIC, 0, _COMMITTED)], asynchronous=False)
            except KafkaException:
                return False
            return not any(part.error for part in done)

        self.wait_until(is_committed, "the group's offset cannot be set")
        committer.close()

    def lose_the_preferred_coordinator(self):
        """Another broker coordinates then, and the preferred one is back; returns both."""
        preferred = self.wait_until(self.coordinator, "nobody coordinates")
        self.cluster.kill(preferred)
        other = self.wait_until(lambda: self.coordinator() not in (None, preferred) and self.coordinator(), "no other")
        self.cluster.start()

        def is_back():
            part = self.coordinated(self.admin)
            return part is not None and preferred in part.isrs

        self.wait_until(is_back, "the preferred coordinator stays out of the ISR")
        return preferred, other

    def move(self, preferred, other):
        """Returns when the old coordinator knows of the new one."""

        def is_moved():
            # Again, where the controller had no time for it.
            with contextlib.suppress(KafkaException):
                self.admin.elect_leaders(ElectionType.PREFERRED, [_COORDINATED]).result(PATIENCE)
            return self.coordinator_as_told_by(other) == preferred

        self.wait_until(is_moved, "the old coordinator does not hear of the new one")

    def test_between_an_assignment_and_its_offsets(self):
        self.prepare()
        preferred, other = self.lose_the_preferred_coordinator()
        read, errors, moved = [], [], []

        def on_assign(*_):
            if not moved:
                moved.append(True)
                self.move(preferred, other)

        settings = {"auto.offset.reset": "earliest", "enable.auto.commit": False, "log_level": QUIET}
        consumer = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": _GROUP, **settings})
        self.addCleanup(consumer.close)
        consumer.subscribe([_TOPIC], on_assign=on_assign)

        def is_read():
            message = consumer.poll(0.2)
            if message is not None and message.error():
                errors.append(str(message.error()))
            elif message is not None:
                read.append(int(message.value()))
            return read and read[-1] == _RECORDS - 1

        self.wait_until(is_read, lambda: f"read: {read}; errors: {errors}")
        self.assertTrue(moved)
        # In order; again where it had to join anew.
        self.assertEqual(sorted(set(read)), list(range(_COMMITTED, _RECORDS)), errors)

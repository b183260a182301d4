"""`client.rack` and `broker.rack`: members get what is near them, with librdkafka and Apache Kafka's own consumer."""

import os

import java_tools
from confluent_kafka import Consumer, KafkaError
from confluent_kafka.admin import AdminClient, NewTopic

from cluster import QUIET, WaitingTest, carry_out, unused_name
from own_cluster import OwnCluster

RACKS = ["a", "b"]
# Partitions by their only replicas: neither the first ones nor the first half are in one rack.
REPLICAS = [[2], [1], [2], [1]]
# Members hear of a rebalance with their next heartbeat: often, here.
QUICK = ["group.consumer.min.heartbeat.interval.ms=100", "group.consumer.heartbeat.interval.ms=300"]


class ClusterInRacks(OwnCluster):
    """Each broker in a rack of its own."""

    def start(self):
        """Starts the brokers, and one after the other again, with its rack."""
        super().start()
        for number, rack in enumerate(RACKS, 1):
            self.shut_down(number)
            os.environ["OTTLA_BROKER_RACK"] = rack
            try:
                super().start()
            finally:
                del os.environ["OTTLA_BROKER_RACK"]


class RacksTest(WaitingTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = ClusterInRacks(brokers=len(RACKS), controllers=1, settings=QUICK)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        cls.admin = AdminClient({"bootstrap.servers": cls.cluster.bootstrap, "log_level": QUIET})

    def setUp(self):
        self.group = unused_name()
        self.topic = unused_name()
        topic = NewTopic(self.topic, len(REPLICAS), replica_assignment=REPLICAS)
        carry_out(lambda: self.admin.create_topics([topic])[self.topic], KafkaError.TOPIC_ALREADY_EXISTS)
        self.members = []
        self.settings = {
            "bootstrap.servers": self.cluster.bootstrap,
            "group.id": self.group,
            "group.protocol": "consumer",
        }

    def tearDown(self):
        for member in self.members:
            member.close()

    def join(self, rack, **settings):
        """A member of librdkafka; settings have `_` for `.`."""
        settings = {name.replace("_", "."): value for name, value in settings.items()}
        member = Consumer(self.settings | {"client.rack": rack, "log_level": QUIET} | settings)
        self.members.append(member)
        member.subscribe([self.topic])

    def join_with_java(self, rack):
        config = self.settings | {"client.rack": rack}
        place = ["--bootstrap-server", self.cluster.bootstrap, "--topic", self.topic]
        member = java_tools.Running("kafka-console-consumer", *place, config=config)
        self.addCleanup(member.end)

    def wait_for(self, *shares):
        """Waits until librdkafka's members have these partitions."""

        def seen():
            for member in self.members:
                member.poll(0)
            return [sorted(part.partition for part in member.assignment()) for member in self.members]

        self.wait_until(lambda: seen() == list(shares), lambda: f"{seen()}, not {shares}")

    def test_uniform_with_both_clients(self):
        self.join("a")
        self.wait_for([0, 1, 2, 3])
        self.join_with_java("b")
        self.wait_for([1, 3])

    def test_range(self):
        for rack in RACKS:
            self.join(rack, group_remote_assignor="range")
        self.wait_for([1, 3], [0, 2])

    def test_the_client_s_own_range(self):
        # In the classic protocol members share by themselves: they see the replicas' racks in Metadata.
        for rack in RACKS:
            self.join(
                rack, group_protocol="classic", partition_assignment_strategy="range", heartbeat_interval_ms=300
            )
        self.wait_for([1, 3], [0, 2])

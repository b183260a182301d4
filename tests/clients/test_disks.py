"""Brokers with several log directories: one that fails takes only its replicas, replicas move between them."""

import json

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient, TopicPartitionReplica
from kafka.errors import NoError, RequestTimedOutError

import java_tools
from cluster import QUIET, WaitingTest, create_topic
from own_cluster import OwnCluster
from test_leader_killed import LibrdkafkaLoad

DISKS = 2
STORAGE_ERROR = 56
# Partitions of the topic that nobody writes to.
IDLE = 6
# Acknowledgements that the producer must get after each change.
ACKS = 200


class DisksTest(WaitingTest):
    def setUp(self):
        self.cluster = OwnCluster(disks=DISKS)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": QUIET})
        self.load = LibrdkafkaLoad.name
        create_topic(self.load, client=self.admin)

    def python_admin(self):
        admin = KafkaAdminClient(bootstrap_servers=self.cluster.bootstrap.split(","))
        self.addCleanup(admin.close)
        return admin

    def partitions(self, topic):
        try:
            return self.admin.list_topics(topic, timeout=5.0).topics[topic].partitions
        except KafkaException:
            return {}

    def leader(self, topic):
        found = self.partitions(topic).get(0)
        return found.leader if found and found.leader != -1 else None

    def in_sync(self, topic, broker):
        """The partitions in whose ISR the broker is."""
        return {index for index, found in self.partitions(topic).items() if broker in found.isrs}

    def all_in_sync(self, topic):
        found = self.partitions(topic)
        return found and all(len(partition.isrs) == 3 for partition in found.values())

    def directories(self, broker):
        """What a broker says of its directories, by path."""
        [described] = self.python_admin().describe_log_dirs(brokers=[broker])
        return {directory["log_dir"]: directory for directory in described["log_dirs"]}

    def homes(self, broker, topic):
        """Of each partition: the directories that hold it, and whether as its future."""
        homes = {}
        for path, directory in self.directories(broker).items():
            for found in directory["topics"]:
                for partition in found["partitions"] if found["name"] == topic else []:
                    place = (path, partition["is_future_key"])
                    homes.setdefault(partition["partition_index"], set()).add(place)
        return homes

    def home(self, broker, topic):
        """The directory of partition 0, once it is in one only."""
        places = self.homes(broker, topic).get(0, set())
        return next(iter(places))[0] if len(places) == 1 and not next(iter(places))[1] else None

    def wait_for_acknowledgements(self, producer):
        goal = len(producer.acknowledged) + ACKS
        self.wait_until(
            lambda: len(producer.acknowledged) >= goal, f"no acknowledgements; errors: {producer.errors[:3]}"
        )

    def check(self, producer):
        """Ends a producer, and reads what it has written."""
        sent = producer.stop()
        self.assertEqual(producer.errors, [])
        reader = Consumer(
            {"bootstrap.servers": self.cluster.bootstrap, "group.id": "unused", "enable.auto.commit": False}
        )
        self.addCleanup(reader.close)
        reader.assign([TopicPartition(self.load, 0, OFFSET_BEGINNING)])
        values = []

        def all_read():
            for message in reader.consume(1000, timeout=1.0):
                self.assertIsNone(message.error())
                values.append(int(message.value()))
            return len(values) >= sent

        self.wait_until(all_read, f"{len(values)} of {sent} records are there")
        self.assertEqual(values, list(range(sent)), "lost, doubled or reordered")
        self.assertEqual(producer.acknowledged, {value: value for value in values})

    def move(self, admin, replica, directory):
        """Sends a replica to another directory; asks again where no controller had time to hear of it."""

        def answer():
            code = admin.alter_replica_log_dirs({replica: directory})[replica]
            return code is not RequestTimedOutError and code

        self.assertIs(self.wait_until(answer, "no controller hears of it"), NoError)

    def lose(self, directory):
        """Puts a plain file in a directory's place; returns where the directory is now."""
        away = directory.with_name(f"{directory.name}-away")
        directory.rename(away)
        directory.write_text("")
        return away

    def test_a_directory_that_fails_takes_only_its_replicas(self):
        create_topic("idle", partitions=IDLE, client=self.admin)
        producer = LibrdkafkaLoad(self.cluster.bootstrap)
        try:
            self.wait_for_acknowledgements(producer)
            self.wait_until(lambda: self.all_in_sync("idle"), "a replica stays out")
            leader = self.wait_until(lambda: self.leader(self.load), "nobody leads")
            path = self.wait_until(lambda: self.home(leader, self.load), "the leader's replica lies nowhere")
            disk = next(disk for disk in (1, 2) if str(self.cluster.disk(leader, disk)) == path)
            homes = self.homes(leader, "idle")
            lost = {index for index, places in homes.items() if places == {(path, False)}}
            kept = homes.keys() - lost
            self.assertEqual(len(lost) + len(kept), IDLE)
            self.assertTrue(lost and kept, f"placed unevenly: {homes}")

            away = self.lose(self.cluster.disk(leader, disk))
            self.wait_until(lambda: self.leader(self.load) not in (leader, None), "the leader stays")
            self.wait_for_acknowledgements(producer)
            self.wait_until(lambda: self.in_sync("idle", leader) == kept, "what is elsewhere stays in sync")
            described = self.directories(leader)
            self.assertEqual(described[path]["error_code"], STORAGE_ERROR)
            other = next(directory for name, directory in described.items() if name != path)
            self.assertEqual(other["error_code"], 0)
            self.wait_until(
                lambda: self.cluster.metrics(leader)["ottla_log_manager_offline_log_directories"] == 1,
                "no metric tells of it",
            )
            said = java_tools.output("kafka-log-dirs", "--describe", "--bootstrap-server", self.cluster.bootstrap)
            [told] = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
            errors = {
                (broker["broker"], directory["logDir"])
                for broker in told["brokers"]
                for directory in broker["logDirs"]
                if directory["error"]
            }
            self.assertEqual(errors, {(leader, path)})

            # Still gone after a restart, and then back.
            self.cluster.shut_down(leader)
            self.cluster.start()
            self.wait_until(lambda: self.in_sync("idle", leader) == kept, "the others come back")
            self.assertEqual(self.in_sync(self.load, leader), set())
            self.cluster.shut_down(leader)
            self.cluster.disk(leader, disk).unlink()
            away.rename(self.cluster.disk(leader, disk))
            self.cluster.start()
            for topic in ("idle", self.load):
                self.wait_until(lambda: self.all_in_sync(topic), f"{topic}: a replica stays out")
            self.assertEqual(self.home(leader, self.load), path)
            self.assertEqual(self.homes(leader, "idle"), homes)
        finally:
            self.check(producer)

    def test_a_broker_that_has_no_directory_left_stops(self):
        producer = LibrdkafkaLoad(self.cluster.bootstrap)
        try:
            self.wait_for_acknowledgements(producer)
            leader = self.wait_until(lambda: self.leader(self.load), "nobody leads")
            for disk in (1, 2):
                self.lose(self.cluster.disk(leader, disk))
            self.wait_until(lambda: self.cluster.ends(leader), "it runs on")
            log = (self.cluster.data / f"logs/broker-{leader}.log").read_text()
            self.assertIn("every log directory has failed", log)
            self.wait_for_acknowledgements(producer)
        finally:
            self.check(producer)

    def test_replicas_move_between_directories_under_load(self):
        producer = LibrdkafkaLoad(self.cluster.bootstrap)
        admin = self.python_admin()
        try:
            self.wait_for_acknowledgements(producer)
            self.wait_until(lambda: self.all_in_sync(self.load), "a replica stays out")
            for turn in range(3):
                for broker in (1, 2, 3):
                    home = self.wait_until(lambda: self.home(broker, self.load), "it lies nowhere")
                    wanted = next(path for path in self.directories(broker) if path != home)
                    replica = TopicPartitionReplica(self.load, 0, broker)
                    self.move(admin, replica, wanted)
                    if turn == 1:
                        # Called back; it may have arrived already.
                        self.move(admin, replica, home)
                        wanted = home
                    self.wait_until(
                        lambda: self.home(broker, self.load) == wanted, f"it does not come to {wanted}"
                    )
                self.wait_for_acknowledgements(producer)
            self.wait_until(lambda: self.all_in_sync(self.load), "a replica stays out")
            before = {broker: self.home(broker, self.load) for broker in (1, 2, 3)}
            leader = self.wait_until(lambda: self.leader(self.load), "nobody leads")
            self.cluster.kill(leader)
            self.wait_for_acknowledgements(producer)
            self.cluster.start()
            self.wait_until(lambda: self.all_in_sync(self.load), "a replica stays out")
            self.assertEqual({broker: self.home(broker, self.load) for broker in (1, 2, 3)}, before)
        finally:
            self.check(producer)

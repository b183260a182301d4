"""Groups of the KIP-848 protocol with librdkafka: `group.protocol=consumer`."""

import threading
import time

from confluent_kafka import Consumer, ConsumerGroupType, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from kafka.protocol.metadata import FindCoordinatorRequest

from cluster import PATIENCE, WaitingTest, create_topic, unused_name
from own_cluster import OwnCluster
from test_groups import PARTITIONS, QUIET, fill, member, parts
from wire import Wire

# Members hear of a rebalance with their next heartbeat: often, here.
QUICK = [
    "group.consumer.min.heartbeat.interval.ms=100",
    "group.consumer.heartbeat.interval.ms=300",
    "group.consumer.min.session.timeout.ms=1000",
    "group.consumer.session.timeout.ms=6000",
]


def consumer(bootstrap, group, *topics, **config):
    """A consumer that is subscribed, if there are topics; settings have `_` for `.`. Times are the broker's business
    in this protocol: librdkafka takes none."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "group.protocol": "consumer",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "log_level": QUIET,
    }
    settings |= {name.replace("_", "."): value for name, value in config.items()}
    made = Consumer(settings)
    if topics:
        made.subscribe(list(topics))
    return made


def coordinator_of(bootstrap, group):
    """The broker that coordinates the group; none while nobody says so."""
    find = FindCoordinatorRequest(version=6, key_type=0, coordinator_keys=[group])
    for address in bootstrap.split(","):
        try:
            [found] = Wire(address).ask(find).coordinators
        except OSError:
            continue
        if found.error_code == 0:
            return found.node_id
    return None


class ConsumerProtocolTest(WaitingTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = OwnCluster(settings=QUICK)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        cls.bootstrap = cls.cluster.bootstrap
        cls.admin = AdminClient({"bootstrap.servers": cls.bootstrap, "log_level": QUIET})

    def setUp(self):
        self.topic = self.create()
        self.group = unused_name()
        self.open = []

    def tearDown(self):
        for one in self.open:
            one.close()

    def create(self, name=None, partitions=PARTITIONS):
        return create_topic(name, partitions=partitions, client=self.admin)

    def join(self, *topics, **config):
        joined = consumer(self.bootstrap, self.group, *(topics or [self.topic]), **config)
        self.open.append(joined)
        return joined

    def leave(self, one):
        self.open.remove(one)
        one.close()

    def take(self, one, count):
        """Polls until `count` records came."""
        taken = []

        def enough():
            message = one.poll(0.2)
            if message is not None:
                self.assertIsNone(message.error())
                taken.append(int(message.value()))
            return len(taken) >= count

        self.wait_until(enough, f"{len(taken)} of {count} records came")
        return taken

    def settle(self, *shares):
        """Polls the consumers until each has as many partitions as its share says. No two ever have the same."""

        def settled():
            for one, _ in shares:
                one.poll(0.05)
            return all(len(one.assignment()) == share for one, share in shares)

        self.wait_until(settled, f"not shared as {[share for _, share in shares]}")
        owned = [(p.topic, p.partition) for one, _ in shares for p in one.assignment()]
        self.assertEqual(len(owned), len(set(owned)), "a partition has two owners")

    def committed(self):
        reader = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})
        found = [position.offset for position in reader.committed(parts(self.topic), timeout=PATIENCE)]
        reader.close()
        return found

    def type_of_group(self):
        listed = self.admin.list_consumer_groups(request_timeout=PATIENCE).result(PATIENCE)
        self.assertEqual(listed.errors, [])
        return {found.group_id: found.type for found in listed.valid}.get(self.group)

    def test_commits_are_kept(self):
        fill(self.bootstrap, self.topic, 100)
        one = self.join()
        self.take(one, 100)
        one.commit(asynchronous=False)
        self.assertEqual(self.committed(), [25] * PARTITIONS)
        self.leave(one)
        fill(self.bootstrap, self.topic, 8, first=100)
        self.assertEqual(sorted(self.take(self.join(), 8)), list(range(100, 108)), "nothing twice, nothing lost")

    def test_members_share_and_take_over(self):
        first = self.join()
        self.settle((first, 4))
        second = self.join()
        self.settle((first, 2), (second, 2))
        third = self.join()
        self.wait_until(lambda: self.shares(first, second, third) == [1, 1, 2], "not shared by three")
        self.leave(first)
        self.settle((second, 2), (third, 2))
        self.leave(second)
        self.settle((third, 4))

    def shares(self, *consumers):
        for one in consumers:
            one.poll(0.05)
        return sorted(len(one.assignment()) for one in consumers)

    def test_more_members_than_partitions(self):
        members = [self.join() for _ in range(6)]
        self.wait_until(lambda: self.shares(*members) == [0, 0, 1, 1, 1, 1], "not shared")
        active = next(one for one in members if one.assignment())
        members.remove(active)
        self.leave(active)
        self.wait_until(lambda: self.shares(*members) == [0, 1, 1, 1, 1], "nobody steps in")

    def test_each_assignor(self):
        other = self.create()
        for assignor in ["uniform", "range"]:
            with self.subTest(assignor):
                self.group = unused_name()
                members = [self.join(self.topic, other, group_remote_assignor=assignor) for _ in range(2)]
                self.settle(*((one, PARTITIONS) for one in members))
                if assignor == "range":
                    # The same partitions of both topics.
                    for one in members:
                        of_topic = {self.topic: set(), other: set()}
                        for p in one.assignment():
                            of_topic[p.topic].add(p.partition)
                        self.assertEqual(of_topic[self.topic], of_topic[other])
                for one in members:
                    self.leave(one)

    def test_an_assignor_that_is_not_there(self):
        one = self.join(group_remote_assignor="sticky")
        errors = []

        def refused():
            message = one.poll(0.2)
            if message is not None and message.error():
                errors.append(message.error())
            return errors

        self.wait_until(refused, "no error came")

    def test_a_pattern_follows_topics_as_they_come(self):
        prefix = unused_name()
        self.create(f"{prefix}-first", partitions=1)
        one = self.join(f"^{prefix}-.*")
        self.settle((one, 1))
        self.create(f"{prefix}-second", partitions=2)
        self.create(f"not-{prefix}-third", partitions=2)
        self.settle((one, 3))
        self.assertEqual({p.topic for p in one.assignment()}, {f"{prefix}-first", f"{prefix}-second"})

    def test_partitions_are_added_while_it_consumes(self):
        members = [self.join() for _ in range(2)]
        self.settle(*((one, 2) for one in members))
        more = NewPartitions(self.topic, 2 * PARTITIONS)
        self.admin.create_partitions([more], operation_timeout=PATIENCE)[self.topic].result(PATIENCE)
        self.settle(*((one, 4) for one in members))

    def test_a_static_member_comes_back_to_what_it_had(self):
        stays, moves = self.join(group_instance_id="stays"), self.join(group_instance_id="moves")
        self.settle((stays, 2), (moves, 2))
        had = {p.partition for p in moves.assignment()}
        self.leave(moves)
        again = self.join(group_instance_id="moves")
        self.settle((stays, 2), (again, 2))
        self.assertEqual({p.partition for p in again.assignment()}, had)

    def test_the_group_is_listed_by_its_type(self):
        one = self.join()
        self.settle((one, 4))
        self.assertEqual(self.type_of_group(), ConsumerGroupType.CONSUMER)
        with self.assertRaises(KafkaException):
            self.admin.delete_consumer_groups([self.group])[self.group].result(PATIENCE)
        self.leave(one)
        self.admin.delete_consumer_groups([self.group])[self.group].result(PATIENCE)
        self.assertIsNone(self.type_of_group())

    def test_a_group_s_own_heartbeat_interval(self):
        wish = ConfigEntry(
            "consumer.heartbeat.interval.ms", "200", incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(ResourceType.GROUP, self.group, incremental_configs=[wish])
        self.admin.incremental_alter_configs([resource])[resource].result(PATIENCE)
        asked = ConfigResource(ResourceType.GROUP, self.group)

        def value():
            found = self.admin.describe_configs([asked])[asked].result(PATIENCE)
            return found["consumer.heartbeat.interval.ms"].value

        self.wait_until(lambda: value() == "200", "not set")
        one = self.join()
        self.settle((one, 4))

    def test_from_the_classic_protocol_to_the_new_one_and_back(self):
        fill(self.bootstrap, self.topic, 40)
        old = member(self.group, self.topic, self.bootstrap)
        self.open.append(old)
        self.take(old, 40)
        old.commit(asynchronous=False)
        self.assertEqual(self.type_of_group(), ConsumerGroupType.CLASSIC)
        new = self.join()
        self.settle((old, 2), (new, 2))
        self.assertEqual(self.type_of_group(), ConsumerGroupType.CONSUMER)
        fill(self.bootstrap, self.topic, 40, first=40)
        seen = set()

        def read():
            for one in (old, new):
                message = one.poll(0.1)
                if message is not None and not message.error():
                    seen.add(int(message.value()))
            return seen >= set(range(40, 80))

        self.wait_until(read, "not everything was read by both")
        # The last member of the new protocol goes.
        self.leave(new)
        self.settle((old, 4))
        self.wait_until(lambda: self.type_of_group() == ConsumerGroupType.CLASSIC, "not a classic group again")


class Reader:
    """Reads and commits from a thread, and remembers which commits were acknowledged."""

    def __init__(self, bootstrap, group, topic):
        self.seen = set()
        self.acknowledged = {}
        self._stopping = threading.Event()
        self._consumer = consumer(bootstrap, group, topic)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stopping.is_set():
            messages = [m for m in self._consumer.consume(50, 0.2) if not m.error()]
            self.seen.update(int(message.value()) for message in messages)
            if messages:
                try:
                    for done in self._consumer.commit(asynchronous=False) or []:
                        if not done.error:
                            known = self.acknowledged.get(done.partition, 0)
                            self.acknowledged[done.partition] = max(known, done.offset)
                except KafkaException:
                    # The coordinator is dead, or there is a rebalance: the next commit says it all.
                    pass
        self._consumer.close()

    def stop(self):
        self._stopping.set()
        self._thread.join()


class CoordinatorKilledTest(WaitingTest):
    KILLS = 3
    BETWEEN = 400

    def test_no_committed_offset_is_lost_or_moved_back(self):
        cluster, group, topic = OwnCluster(settings=QUICK), "survivors-848", "work"
        self.addCleanup(cluster.close)
        cluster.start()
        client = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": QUIET})
        client.create_topics([NewTopic(topic, PARTITIONS, 3)], operation_timeout=PATIENCE)[topic].result(PATIENCE)
        readers = [Reader(cluster.bootstrap, group, topic) for _ in range(2)]
        sent = 0
        try:
            for _ in range(self.KILLS):
                fill(cluster.bootstrap, topic, self.BETWEEN, first=sent)
                sent += self.BETWEEN
                coordinator = self.wait_until(lambda: coordinator_of(cluster.bootstrap, group), "nobody coordinates")
                fill(cluster.bootstrap, topic, self.BETWEEN, first=sent)
                sent += self.BETWEEN
                acknowledged = {}
                for reader in readers:
                    for partition, offset in dict(reader.acknowledged).items():
                        acknowledged[partition] = max(offset, acknowledged.get(partition, 0))
                began = time.monotonic()
                cluster.kill(coordinator)
                committed = self.committed(cluster.bootstrap, group, topic)
                print(f"coordinator answers {time.monotonic() - began:.2f} s after its kill -9")
                for partition, offset in acknowledged.items():
                    self.assertGreaterEqual(committed[partition], offset, f"partition {partition} went back")

                def everything(count=sent):
                    return len(readers[0].seen | readers[1].seen) == count

                self.wait_until(everything, "not everything was consumed")
                cluster.start()
        finally:
            for reader in readers:
                reader.stop()

    def committed(self, bootstrap, group, topic):
        """What a new consumer is told, as soon as there is a coordinator that knows."""
        reader = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": QUIET})
        asked = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]

        def told():
            try:
                return [position.offset for position in reader.committed(asked, timeout=1)]
            except KafkaException:
                return None

        try:
            return self.wait_until(told, "nobody knows what is committed")
        finally:
            reader.close()

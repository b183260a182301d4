"""Consumer groups with stock clients: confluent-kafka (librdkafka) and kafka-python."""

import threading
import time

import kafka
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from cluster import BOOTSTRAP, PATIENCE, ClusterTest, WaitingTest, admin, create_topic, delete_topic, unused_name
from own_cluster import OwnCluster

PARTITIONS = 4
# librdkafka tells of every broken connection.
QUIET = 0


def fill(bootstrap, topic, count, first=0):
    """Produces the numbers from `first` on, round the partitions."""
    writer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    errors = []
    for number in range(first, first + count):
        writer.produce(
            topic,
            str(number),
            partition=number % PARTITIONS,
            on_delivery=lambda error, _: errors.append(error) if error else None,
        )
    assert writer.flush(PATIENCE) == 0 and not errors, errors


def member(group, topic, bootstrap=BOOTSTRAP, **config):
    """A subscribed consumer; settings have `_` for `.`."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 300,
        "log_level": QUIET,
    }
    # A callback keeps its name.
    settings |= {name if callable(value) else name.replace("_", "."): value for name, value in config.items()}
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    return consumer


def parts(topic):
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]


class GroupsTest(ClusterTest):
    def setUp(self):
        self.topic = create_topic(partitions=PARTITIONS)
        self.group = unused_name()
        self.open = []

    def tearDown(self):
        for consumer in self.open:
            consumer.close()

    def join(self, **config):
        consumer = member(self.group, self.topic, **config)
        self.open.append(consumer)
        return consumer

    def leave(self, consumer):
        self.open.remove(consumer)
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

        self.wait_until(enough, f"{len(taken)} of {count} records came")
        return taken

    def settle(self, *shares):
        """Polls the consumers until each has as many partitions as its share says."""

        def settled():
            for consumer, _ in shares:
                consumer.poll(0.05)
            return all(len(consumer.assignment()) == share for consumer, share in shares)

        self.wait_until(settled, f"not shared as {[share for _, share in shares]}")
        owned = [(p.topic, p.partition) for consumer, _ in shares for p in consumer.assignment()]
        self.assertEqual(len(owned), len(set(owned)), "a partition has two owners")

    def committed(self):
        reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": self.group})
        found = [position.offset for position in reader.committed(parts(self.topic), timeout=PATIENCE)]
        reader.close()
        return found

    def test_commits_are_kept(self):
        fill(BOOTSTRAP, self.topic, 100)
        consumer = self.join()
        self.take(consumer, 100)
        consumer.commit(asynchronous=False)
        self.assertEqual(self.committed(), [25] * PARTITIONS)
        self.leave(consumer)
        fill(BOOTSTRAP, self.topic, 8, first=100)
        self.assertEqual(sorted(self.take(self.join(), 8)), list(range(100, 108)), "nothing twice, nothing lost")

    def test_asynchronous_and_automatic_commits(self):
        fill(BOOTSTRAP, self.topic, 40)
        done = []
        consumer = self.join(on_commit=lambda error, found: done.append((error, found)))
        self.take(consumer, 40)
        consumer.commit(asynchronous=True)

        def answered():
            consumer.poll(0.1)
            return done

        self.wait_until(answered, "the commit is not answered")
        self.assertIsNone(done[0][0])
        self.assertEqual(self.committed(), [10] * PARTITIONS)
        self.leave(consumer)
        fill(BOOTSTRAP, self.topic, 40, first=40)
        automatic = self.join(enable_auto_commit=True, auto_commit_interval_ms=100)
        self.take(automatic, 40)
        self.wait_until(lambda: self.committed() == [20] * PARTITIONS, "nothing is committed automatically")

    def test_members_share_and_take_over(self):
        first = self.join()
        self.settle((first, 4))
        second = self.join()
        self.settle((first, 2), (second, 2))
        self.leave(first)
        self.settle((second, 4))

    def test_a_member_that_stops_polling_is_replaced(self):
        # librdkafka leaves the group by itself when its application does not poll.
        lazy = self.join(max_poll_interval_ms=6000)
        self.settle((lazy, 4))
        eager = self.join()
        self.settle((eager, 4))

    def test_cooperative_members(self):
        first = self.join(partition_assignment_strategy="cooperative-sticky")
        self.settle((first, 4))
        second = self.join(partition_assignment_strategy="cooperative-sticky")
        self.settle((first, 2), (second, 2))
        self.leave(second)
        self.settle((first, 4))

    def test_each_assignor(self):
        for assignor in ["range", "roundrobin", "cooperative-sticky"]:
            with self.subTest(assignor):
                self.group = unused_name()
                members = [self.join(partition_assignment_strategy=assignor) for _ in range(3)]

                def settled():
                    for consumer in members:
                        consumer.poll(0.05)
                    return sorted(len(consumer.assignment()) for consumer in members) == [1, 1, 2]

                self.wait_until(settled, "not shared")
                owned = sorted(p.partition for consumer in members for p in consumer.assignment())
                self.assertEqual(owned, list(range(PARTITIONS)))
                for consumer in members:
                    self.leave(consumer)

    def test_partitions_are_added_while_it_consumes(self):
        members = [self.join(topic_metadata_refresh_interval_ms=500) for _ in range(2)]
        self.settle(*((consumer, 2) for consumer in members))
        more = NewPartitions(self.topic, 2 * PARTITIONS)
        admin().create_partitions([more], operation_timeout=PATIENCE)[self.topic].result(PATIENCE)
        self.settle(*((consumer, 4) for consumer in members))

    def test_a_topic_is_deleted_under_a_group(self):
        fill(BOOTSTRAP, self.topic, 40)
        consumer = self.join(allow_auto_create_topics=False, topic_metadata_refresh_interval_ms=500)
        self.take(consumer, 40)
        consumer.commit(asynchronous=False)
        self.assertEqual(self.committed(), [10] * PARTITIONS)
        delete_topic(self.topic)
        self.wait_until(lambda: self.committed() == [-1001] * PARTITIONS, "its offsets are kept")
        # The group goes on with a topic that is there.
        other = create_topic(partitions=PARTITIONS)
        fill(BOOTSTRAP, other, 4)
        consumer.subscribe([other])
        found = []

        def read():
            message = consumer.poll(0.2)
            if message is not None and not message.error():
                found.append(int(message.value()))
            return len(found) == 4

        self.wait_until(read, "the other topic is not read")

    def test_a_static_member_comes_back_without_a_rebalance(self):
        stays = self.join(group_instance_id="stays")
        moves = self.join(group_instance_id="moves")
        self.settle((stays, 2), (moves, 2))
        had = {p.partition for p in moves.assignment()}
        # A static member does not leave when it closes.
        self.leave(moves)
        again = self.join(group_instance_id="moves")
        self.settle((stays, 2), (again, 2))
        self.assertEqual({p.partition for p in again.assignment()}, had)
        # The same instance a second time fences the first.
        usurper = self.join(group_instance_id="stays")
        fenced = []

        def is_fenced():
            usurper.poll(0.05)
            message = stays.poll(0.05)
            if message is not None and message.error():
                fenced.append(message.error().code())
            return fenced

        self.wait_until(is_fenced, "the first instance goes on")
        self.assertIn(fenced[0], (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL))

    def test_more_members_than_partitions(self):
        members = [self.join() for _ in range(6)]

        def settled():
            for consumer in members:
                consumer.poll(0.02)
            return sorted(len(consumer.assignment()) for consumer in members) == [0, 0, 1, 1, 1, 1]

        self.wait_until(settled, "not shared")
        active = next(consumer for consumer in members if consumer.assignment())
        members.remove(active)
        self.leave(active)

        def stepped_in():
            for consumer in members:
                consumer.poll(0.02)
            return sorted(len(consumer.assignment()) for consumer in members) == [0, 1, 1, 1, 1]

        self.wait_until(stepped_in, "nobody steps in")

    def test_no_committed_offset_and_no_reset(self):
        fill(BOOTSTRAP, self.topic, 4)
        consumer = self.join(auto_offset_reset="error")
        errors = []

        def refused():
            message = consumer.poll(0.2)
            if message is not None and message.error():
                errors.append(message.error().code())
            return errors

        self.wait_until(refused, "no error came")
        self.assertEqual(errors[0], KafkaError._AUTO_OFFSET_RESET)

    def test_a_commit_of_an_old_member_is_refused(self):
        fill(BOOTSTRAP, self.topic, 4)
        consumer = self.join()
        self.take(consumer, 4)
        standalone = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": self.group})
        with self.assertRaises(KafkaException) as raised:
            standalone.commit(offsets=[TopicPartition(self.topic, 0, 1)], asynchronous=False)
        standalone.close()
        self.assertEqual(raised.exception.args[0].code(), KafkaError.UNKNOWN_MEMBER_ID)

    def test_administration(self):
        fill(BOOTSTRAP, self.topic, 4)
        consumer = self.join(client_id="someone")
        self.take(consumer, 4)
        consumer.commit(asynchronous=False)
        listed = admin().list_consumer_groups(request_timeout=PATIENCE).result(PATIENCE)
        self.assertEqual(listed.errors, [])
        states = {found.group_id: found.state for found in listed.valid}
        self.assertEqual(states[self.group], ConsumerGroupState.STABLE)
        found = admin().describe_consumer_groups([self.group])[self.group].result(PATIENCE)
        self.assertEqual([m.client_id for m in found.members], ["someone"])
        self.assertEqual(len(found.members[0].assignment.topic_partitions), PARTITIONS)
        with self.assertRaises(KafkaException) as raised:
            admin().delete_consumer_groups([self.group])[self.group].result(PATIENCE)
        self.assertEqual(raised.exception.args[0].code(), KafkaError.NON_EMPTY_GROUP)
        self.leave(consumer)
        admin().delete_consumer_groups([self.group])[self.group].result(PATIENCE)
        self.assertEqual(set(self.committed()), {-1001}, "what was committed is gone with the group")

    def test_kafka_python(self):
        fill(BOOTSTRAP, self.topic, 40)

        def join():
            return kafka.KafkaConsumer(
                self.topic,
                bootstrap_servers=BOOTSTRAP.split(","),
                group_id=self.group,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                session_timeout_ms=6000,
                heartbeat_interval_ms=300,
            )

        first = join()
        seen = []

        def read():
            for records in first.poll(timeout_ms=200).values():
                seen.extend(int(record.value) for record in records)
            return len(seen) >= 40

        self.wait_until(read, "not everything came")
        self.assertEqual(sorted(seen), list(range(40)))
        first.commit()
        self.assertEqual(self.committed(), [10] * PARTITIONS)
        second = join()

        def shared():
            first.poll(timeout_ms=100)
            second.poll(timeout_ms=100)
            return len(first.assignment()) == len(second.assignment()) == 2

        self.wait_until(shared, "not shared")
        first.close()

        def took_over():
            second.poll(timeout_ms=100)
            return len(second.assignment()) == PARTITIONS

        self.wait_until(took_over, "not taken over")
        second.close()


class Worker:
    """Reads and commits from a thread, and remembers which commits were acknowledged."""

    def __init__(self, bootstrap, group, topic, **config):
        self.seen = set()
        self.acknowledged = {}
        self._stopping = threading.Event()
        self._consumer = member(group, topic, bootstrap, **config)
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


def coordinator_of(cluster, group):
    """The broker that answers for the group; none while leaderships move."""
    # librdkafka's admin client does not look for a coordinator again that says to be none any more.
    client = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": QUIET})
    try:
        found = client.describe_consumer_groups([group], request_timeout=PATIENCE)[group].result(PATIENCE)
    except KafkaException:
        return None
    return found.coordinator.id


class CoordinatorKilledTest(WaitingTest):
    KILLS = 3
    BETWEEN = 400

    def setUp(self):
        self.cluster = OwnCluster()
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def test_no_committed_offset_is_lost_or_moved_back(self):
        self.kill_coordinators()

    def test_nor_with_cooperative_members(self):
        self.kill_coordinators(partition_assignment_strategy="cooperative-sticky")

    def kill_coordinators(self, **config):
        cluster, group, topic = self.cluster, "survivors", "work"
        client = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": QUIET})
        client.create_topics([NewTopic(topic, PARTITIONS, 3)], operation_timeout=PATIENCE)[topic].result(PATIENCE)
        workers = [Worker(cluster.bootstrap, group, topic, **config) for _ in range(2)]
        probe = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group, "log_level": QUIET})
        sent = 0
        try:
            for _ in range(self.KILLS):
                fill(cluster.bootstrap, topic, self.BETWEEN, first=sent)
                sent += self.BETWEEN
                coordinator = self.wait_until(lambda: coordinator_of(cluster, group), "nobody coordinates")
                fill(cluster.bootstrap, topic, self.BETWEEN, first=sent)
                sent += self.BETWEEN
                acknowledged = self.acknowledged(workers)
                began = time.monotonic()
                cluster.kill(coordinator)
                committed = self.committed(probe, topic)
                print(f"coordinator answers {time.monotonic() - began:.2f} s after its kill -9")
                for partition, offset in acknowledged.items():
                    self.assertGreaterEqual(committed[partition], offset, f"partition {partition} went back")
                self.wait_until(lambda: len(self.seen(workers)) == sent, "not everything was consumed")
                cluster.start()
        finally:
            for worker in workers:
                worker.stop()
        self.assertEqual(self.seen(workers), set(range(sent)))
        committed = self.committed(probe, topic)
        for partition, offset in self.acknowledged(workers).items():
            self.assertGreaterEqual(committed[partition], offset)
        probe.close()

    def committed(self, probe, topic):
        def asked():
            try:
                found = probe.committed(parts(topic), timeout=2)
            except KafkaException:
                return None
            return found if not any(position.error for position in found) else None

        found = self.wait_until(asked, "nobody knows what is committed")
        return {position.partition: position.offset for position in found}

    @staticmethod
    def acknowledged(workers):
        highest = {}
        for worker in workers:
            for partition, offset in dict(worker.acknowledged).items():
                highest[partition] = max(highest.get(partition, 0), offset)
        return highest

    @staticmethod
    def seen(workers):
        return set().union(*(worker.seen for worker in workers))

"""What confluent-kafka (librdkafka) lets one see of groups from close by: commits one by one, static members,
administration. What groups live through is in test_group_scenarios."""

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from cluster import BOOTSTRAP, PATIENCE, ClusterTest, admin, create_topic, unused_name

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

    def test_a_member_that_stops_polling_is_replaced(self):
        # librdkafka leaves the group by itself when its application does not poll.
        lazy = self.join(max_poll_interval_ms=6000)
        self.settle((lazy, 4))
        eager = self.join()
        self.settle((eager, 4))

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

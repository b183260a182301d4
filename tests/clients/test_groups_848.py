"""Groups of the KIP-848 protocol with librdkafka (`group.protocol=consumer`), seen from close by: assignors, patterns, types
and configuration of groups, the way from one protocol to the other. What groups live through is in test_group_scenarios."""

from confluent_kafka import ConsumerGroupType, KafkaException

from cluster import PATIENCE, admin, configure_group, create_topic, unused_name
from group_consumers import PARTITIONS, ConsumersTest, fill


class ConsumerProtocolTest(ConsumersTest):
    protocol = "consumer"

    def type_of_group(self):
        listed = admin().list_consumer_groups(request_timeout=PATIENCE).result(PATIENCE)
        self.assertEqual(listed.errors, [])
        return {found.group_id: found.type for found in listed.valid}.get(self.group)

    def test_each_assignor(self):
        other = create_topic(partitions=PARTITIONS)
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
        create_topic(f"{prefix}-first", partitions=1)
        one = self.join(f"^{prefix}-.*")
        self.settle((one, 1))
        create_topic(f"{prefix}-second", partitions=2)
        create_topic(f"not-{prefix}-third", partitions=2)
        self.settle((one, 3))
        self.assertEqual({p.topic for p in one.assignment()}, {f"{prefix}-first", f"{prefix}-second"})

    def test_the_group_is_listed_by_its_type(self):
        one = self.join()
        self.settle((one, 4))
        self.assertEqual(self.type_of_group(), ConsumerGroupType.CONSUMER)
        with self.assertRaises(KafkaException):
            admin().delete_consumer_groups([self.group])[self.group].result(PATIENCE)
        self.leave(one)
        admin().delete_consumer_groups([self.group])[self.group].result(PATIENCE)
        self.assertIsNone(self.type_of_group())

    def test_a_group_s_own_heartbeat_interval(self):
        configure_group(self.group, "consumer.heartbeat.interval.ms", "200")
        one = self.join()
        self.settle((one, 4))

    def test_from_the_classic_protocol_to_the_new_one_and_back(self):
        fill(self.topic, 40)
        old = self.join(protocol="classic")
        self.take(old, 40)
        old.commit(asynchronous=False)
        self.assertEqual(self.type_of_group(), ConsumerGroupType.CLASSIC)
        new = self.join()
        self.settle((old, 2), (new, 2))
        self.assertEqual(self.type_of_group(), ConsumerGroupType.CONSUMER)
        fill(self.topic, 40, first=40)
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

"""What confluent-kafka (librdkafka) lets one see of groups from close by: commits one by one, static members,
administration. What groups live through is in test_group_scenarios."""

from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, TopicPartition

from cluster import BOOTSTRAP, PATIENCE, admin
from group_consumers import PARTITIONS, ConsumersTest, fill


class GroupsTest(ConsumersTest):
    def test_commits_are_kept(self):
        fill(self.topic, 100)
        consumer = self.join()
        self.take(consumer, 100)
        consumer.commit(asynchronous=False)
        self.assertEqual(self.committed(), [25] * PARTITIONS)
        self.leave(consumer)
        fill(self.topic, 8, first=100)
        self.assertEqual(sorted(self.take(self.join(), 8)), list(range(100, 108)), "nothing twice, nothing lost")

    def test_asynchronous_and_automatic_commits(self):
        fill(self.topic, 40)
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
        fill(self.topic, 40, first=40)
        automatic = self.join(enable_auto_commit=True, auto_commit_interval_ms=100)
        self.take(automatic, 40)
        self.wait_until(lambda: self.committed() == [20] * PARTITIONS, "nothing is committed automatically")

    def test_a_member_that_stops_polling_is_replaced(self):
        # librdkafka leaves the group by itself when its application does not poll.
        lazy = self.join(max_poll_interval_ms=6000)
        self.settle((lazy, 4))
        eager = self.join()
        self.settle((eager, 4))

    def test_an_instance_a_second_time_fences_the_first(self):
        first = self.join(group_instance_id="instance")
        self.settle((first, PARTITIONS))
        usurper = self.join(group_instance_id="instance")
        fenced = []

        def is_fenced():
            usurper.poll(0.05)
            message = first.poll(0.05)
            if message is not None and message.error():
                fenced.append(message.error().code())
            return fenced

        self.wait_until(is_fenced, "the first instance goes on")
        self.assertIn(fenced[0], (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL))

    def test_a_commit_of_an_old_member_is_refused(self):
        fill(self.topic, 4)
        consumer = self.join()
        self.take(consumer, 4)
        standalone = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": self.group})
        with self.assertRaises(KafkaException) as raised:
            standalone.commit(offsets=[TopicPartition(self.topic, 0, 1)], asynchronous=False)
        standalone.close()
        self.assertEqual(raised.exception.args[0].code(), KafkaError.UNKNOWN_MEMBER_ID)

    def test_administration(self):
        fill(self.topic, 4)
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

"""What Apache Kafka's own tools see of a group's state. What groups live through, with the Java consumer as a member and
with kafka-consumer-groups, is in test_group_scenarios."""

import json

import java_tools
from cluster import BOOTSTRAP, ClusterTest, create_topic, unused_name
from coordinator_killer import partition_of
from group_administration import GroupsTool
from group_consumers import PARTITIONS, committed, fill

RECORDS = 40


class JavaGroupsTest(ClusterTest):
    def setUp(self):
        self.group = unused_name()

    def test_kafka_reads_the_offsets_topic(self):
        """In the formats that its own tools know, group and offset."""
        topic = create_topic(partitions=PARTITIONS)
        fill(topic, RECORDS)
        # It commits what it has read, and leaves.
        java_tools.output(
            "kafka-console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--group", self.group,
            "--from-beginning", "--max-messages", str(RECORDS),
        )  # fmt: skip
        each = RECORDS // PARTITIONS
        self.assertEqual(committed(self.group, topic), [each] * PARTITIONS)

        def printed(formatter):
            # Not by subscription: the first rebalance of a group of its own would take most of the time that it has.
            text = java_tools.output(
                "kafka-console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", "__consumer_offsets",
                "--partition", str(partition_of(self.group)), "--offset", "earliest", "--timeout-ms", "5000",
                "--formatter", f"org.apache.kafka.tools.consumer.{formatter}",
            )  # fmt: skip
            # One object behind the other, without anything between them.
            records = json.loads("[" + text.strip().replace("}{", "},{") + "]")
            return [record for record in records if record["key"]["data"].get("group") == self.group]

        def offsets():
            found = {}
            for record in printed("OffsetsMessageFormatter"):
                key = record["key"]["data"]
                self.assertEqual(key["topic"], topic)
                found[key["partition"]] = record["value"]["data"]["offset"]
            return found

        def members():
            generations = [record["value"]["data"] for record in printed("GroupMetadataMessageFormatter")]
            self.assertLessEqual({value["protocolType"] for value in generations}, {"consumer"})
            return [len(value["members"]) for value in generations]

        # The tool ends in silence where nothing comes in time: it is run until it has come so far.
        self.wait_until(lambda: offsets() == dict.fromkeys(range(PARTITIONS), each), "the offsets are not there")
        counts = self.wait_until(lambda: (found := members())[-1:] == [0] and found, "the last one has not left")
        self.assertIn(1, counts)

    def test_a_group_that_is_not_there(self):
        tool = GroupsTool(BOOTSTRAP)
        self.assertIn("GroupIdNotFoundException", tool.refused("--describe", "--group", self.group))
        self.assertIn("GroupIdNotFoundException", tool.refused("--delete", "--group", self.group))

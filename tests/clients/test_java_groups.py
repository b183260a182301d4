"""Consumer groups with Apache Kafka's own tools: the Java consumer as a member, and the administration of groups."""

import json
import subprocess
import threading

import java_tools
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from cluster import BOOTSTRAP, PATIENCE, ClusterTest, WaitingTest, create_topic, unused_name
from own_cluster import OwnCluster
from test_groups import PARTITIONS, coordinator_of, fill, parts

RECORDS = 40


def groups(*arguments):
    """kafka-consumer-groups; the rows of its table, as dictionaries by the column's name."""
    printed = java_tools.output("kafka-consumer-groups", "--bootstrap-server", BOOTSTRAP, *arguments)
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    heads = [at for at, words in enumerate(lines) if words[0] == "GROUP"]
    if not heads:
        return []
    head = lines[heads[0]]
    return [dict(zip(head, words)) for words in lines[heads[0] + 1 :]]


def refused(*arguments):
    """kafka-consumer-groups that says an error, whatever it ends with."""
    done = java_tools.run("kafka-consumer-groups", "--bootstrap-server", BOOTSTRAP, *arguments)
    return done.stdout + done.stderr


class ConsoleConsumer:
    """kafka-console-consumer --group that runs until it is stopped, and what it prints."""

    def __init__(self, group, topic, *arguments, bootstrap=BOOTSTRAP):
        command = java_tools.command(
            "kafka-console-consumer", "--bootstrap-server", bootstrap, "--topic", topic, "--group", group,
            "--from-beginning", "--command-property", "auto.commit.interval.ms=100",
            "--command-property", "heartbeat.interval.ms=500", *arguments,
        )  # fmt: skip
        self.lines = []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line.strip())

    def stop(self):
        """SIGTERM: the consumer commits and leaves."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._reader.join()
        self._process.stdout.close()

    def kill(self):
        """kill -9: nobody says goodbye."""
        self._process.kill()
        self.stop()


class JavaGroupsTest(ClusterTest):
    def setUp(self):
        self.topic = create_topic(partitions=PARTITIONS)
        self.group = unused_name()
        self.running = []

    def tearDown(self):
        for consumer in self.running:
            consumer.stop()

    def join(self, *arguments):
        consumer = ConsoleConsumer(self.group, self.topic, *arguments)
        self.running.append(consumer)
        return consumer

    def leave(self, consumer):
        self.running.remove(consumer)
        consumer.stop()

    def committed(self):
        reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": self.group})
        found = [position.offset for position in reader.committed(parts(self.topic), timeout=PATIENCE)]
        reader.close()
        return found

    def shares(self):
        """How many partitions each member has."""
        return [row["#PARTITIONS"] for row in groups("--describe", "--group", self.group, "--members")]

    def wait_for_lines(self, count, *consumers):
        def seen():
            return sum(len(consumer.lines) for consumer in consumers) >= count

        self.wait_until(seen, f"{[len(consumer.lines) for consumer in consumers]} of {count} records came")

    def test_members_share_commit_and_take_over(self):
        fill(BOOTSTRAP, self.topic, RECORDS)
        first = self.join()
        self.wait_for_lines(RECORDS, first)
        self.assertEqual(sorted(map(int, first.lines)), list(range(RECORDS)))
        self.wait_until(lambda: self.committed() == [RECORDS // PARTITIONS] * PARTITIONS, "not committed")
        second = self.join()
        self.wait_until(lambda: self.shares() == ["2", "2"], "not shared")
        fill(BOOTSTRAP, self.topic, RECORDS, first=RECORDS)
        self.wait_for_lines(2 * RECORDS, first, second)
        self.assertEqual(
            sorted(int(line) for consumer in (first, second) for line in consumer.lines), list(range(2 * RECORDS))
        )
        # One stops and commits what it read: the other goes on behind it.
        self.leave(first)
        fill(BOOTSTRAP, self.topic, RECORDS, first=2 * RECORDS)
        self.wait_for_lines(3 * RECORDS, first, second)
        self.assertEqual(
            sorted(int(line) for consumer in (first, second) for line in consumer.lines), list(range(3 * RECORDS))
        )

    def test_a_killed_member_is_replaced(self):
        quick = ["--command-property", "session.timeout.ms=6000"]
        first = self.join(*quick)
        fill(BOOTSTRAP, self.topic, RECORDS)
        self.wait_for_lines(RECORDS, first)
        second = self.join(*quick)
        self.wait_until(lambda: self.shares() == ["2", "2"], "not shared")
        self.running.remove(first)
        first.kill()
        fill(BOOTSTRAP, self.topic, RECORDS, first=RECORDS)

        def took_over():
            fresh = {int(line) for line in second.lines}
            return fresh >= set(range(RECORDS, 2 * RECORDS))

        self.wait_until(took_over, "nobody takes over")

    def test_administration(self):
        fill(BOOTSTRAP, self.topic, RECORDS)
        consumer = self.join("--command-property", "client.id=someone")
        self.wait_for_lines(RECORDS, consumer)
        each = RECORDS // PARTITIONS
        self.wait_until(lambda: self.committed() == [each] * PARTITIONS, "not committed")
        self.assertIn(self.group, java_tools.output("kafka-consumer-groups", "--bootstrap-server", BOOTSTRAP, "--list"))
        [state] = groups("--describe", "--group", self.group, "--state")
        self.assertEqual((state["STATE"], state["#MEMBERS"]), ("Stable", "1"))
        rows = groups("--describe", "--group", self.group)
        self.assertEqual(len(rows), PARTITIONS)
        for row in rows:
            self.assertEqual((row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"]), (str(each), str(each), "0"))
            self.assertEqual((row["CLIENT-ID"], row["HOST"]), ("someone", "/127.0.0.1"))
        self.assertIn("GroupNotEmptyException", refused("--delete", "--group", self.group))
        whole = ["--group", self.group, "--topic", self.topic]
        self.assertIn("can only be reset if the group", refused("--reset-offsets", "--to-earliest", "--execute", *whole))
        self.leave(consumer)

        reset = groups("--reset-offsets", "--to-earliest", "--dry-run", *whole)
        self.assertEqual({row["NEW-OFFSET"] for row in reset}, {"0"})
        self.assertEqual(self.committed(), [each] * PARTITIONS, "a dry run changes nothing")
        groups("--reset-offsets", "--to-earliest", "--execute", *whole)
        self.assertEqual(self.committed(), [0] * PARTITIONS)
        groups("--reset-offsets", "--shift-by", "3", "--execute", *whole)
        self.assertEqual(self.committed(), [3] * PARTITIONS)
        groups("--delete-offsets", "--group", self.group, "--topic", f"{self.topic}:0")
        self.assertEqual(self.committed(), [-1001] + [3] * (PARTITIONS - 1))
        groups("--delete", "--group", self.group)
        self.assertIn("GroupIdNotFoundException", refused("--describe", "--group", self.group))

    def test_kafka_reads_the_offsets_topic(self):
        """In the formats that its own tools know, group and offset."""
        fill(BOOTSTRAP, self.topic, RECORDS)
        consumer = self.join()
        self.wait_for_lines(RECORDS, consumer)
        each = RECORDS // PARTITIONS
        self.wait_until(lambda: self.committed() == [each] * PARTITIONS, "not committed")
        self.leave(consumer)

        def printed(formatter):
            text = java_tools.output(
                "kafka-console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", "__consumer_offsets",
                "--from-beginning", "--timeout-ms", "5000",
                "--formatter", f"org.apache.kafka.tools.consumer.{formatter}",
            )  # fmt: skip
            # One object behind the other, without anything between them.
            records = json.loads("[" + text.strip().replace("}{", "},{") + "]")
            return [record for record in records if record["key"]["data"].get("group") == self.group]

        offsets = {}
        for record in printed("OffsetsMessageFormatter"):
            key = record["key"]["data"]
            self.assertEqual(key["topic"], self.topic)
            offsets[key["partition"]] = record["value"]["data"]["offset"]
        self.assertEqual(offsets, dict.fromkeys(range(PARTITIONS), each))
        generations = [record["value"]["data"] for record in printed("GroupMetadataMessageFormatter")]
        self.assertEqual({value["protocolType"] for value in generations}, {"consumer"})
        self.assertEqual([len(value["members"]) for value in generations][-1], 0, "the last one left")
        self.assertIn(1, [len(value["members"]) for value in generations])

    def test_a_group_that_is_not_there(self):
        self.assertIn("GroupIdNotFoundException", refused("--describe", "--group", self.group))
        self.assertIn("GroupIdNotFoundException", refused("--delete", "--group", self.group))


class JavaCoordinatorKilledTest(WaitingTest):
    KILLS = 2

    def test_a_member_goes_on_at_another_coordinator(self):
        cluster = OwnCluster()
        self.addCleanup(cluster.close)
        cluster.start()
        group, topic = "survivor", "work"
        client = AdminClient({"bootstrap.servers": cluster.bootstrap})
        client.create_topics([NewTopic(topic, PARTITIONS, 3)], operation_timeout=PATIENCE)[topic].result(PATIENCE)
        reader = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group})
        self.addCleanup(reader.close)

        def committed():
            try:
                return [position.offset for position in reader.committed(parts(topic), timeout=2)]
            except KafkaException:
                return None

        consumer = ConsoleConsumer(group, topic, bootstrap=cluster.bootstrap)
        try:
            sent = 0
            for _ in range(self.KILLS):
                fill(cluster.bootstrap, topic, RECORDS, first=sent)
                sent += RECORDS
                each = sent // PARTITIONS
                self.wait_until(lambda: committed() == [each] * PARTITIONS, "not committed")
                cluster.kill(self.wait_until(lambda: coordinator_of(cluster, group), "nobody coordinates"))
                self.assertEqual(self.wait_until(committed, "nobody knows"), [each] * PARTITIONS)
                fill(cluster.bootstrap, topic, RECORDS, first=sent)
                sent += RECORDS
                each = sent // PARTITIONS
                self.wait_until(lambda: committed() == [each] * PARTITIONS, "the member does not go on")
                cluster.start()
            self.assertEqual({int(line) for line in consumer.lines}, set(range(sent)))
        finally:
            consumer.stop()

"""Consumer groups with Apache Kafka's own tools: the Java consumer as a member, and the administration of groups."""

import subprocess
import threading

import java_tools
from cluster import BOOTSTRAP, PATIENCE, ClusterTest, create_topic, unused_name
from test_groups import PARTITIONS, fill, parts

from confluent_kafka import Consumer

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

    def __init__(self, group, topic, *arguments):
        command = java_tools.command(
            "kafka-console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--group", group,
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

    def test_a_group_that_is_not_there(self):
        self.assertIn("GroupIdNotFoundException", refused("--describe", "--group", self.group))
        self.assertIn("GroupIdNotFoundException", refused("--delete", "--group", self.group))

"""Groups of the KIP-848 protocol with Apache Kafka's own consumer and tools: `group.protocol=consumer`."""

import subprocess
import threading

import java_tools
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from cluster import PATIENCE, WaitingTest, create_topic, unused_name
from own_cluster import OwnCluster
from test_groups import PARTITIONS, QUIET, fill, parts
from test_groups_848 import QUICK, coordinator_of

RECORDS = 40
EACH = RECORDS // PARTITIONS


class ConsoleConsumer:
    """kafka-console-consumer --group in the new protocol, until it is stopped, and what it prints."""

    def __init__(self, bootstrap, group, topic, *arguments):
        command = java_tools.command(
            "kafka-console-consumer", "--bootstrap-server", bootstrap, "--topic", topic, "--group", group,
            "--from-beginning", "--command-property", "auto.commit.interval.ms=100",
            "--command-property", "group.protocol=consumer", *arguments,
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


class JavaConsumerProtocolTest(WaitingTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = OwnCluster(settings=QUICK)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        cls.bootstrap = cls.cluster.bootstrap
        cls.admin = AdminClient({"bootstrap.servers": cls.bootstrap, "log_level": QUIET})

    def setUp(self):
        self.topic = create_topic(partitions=PARTITIONS, client=self.admin)
        self.group = unused_name()
        self.running = []

    def tearDown(self):
        for one in self.running:
            one.stop()

    def join(self, *arguments):
        one = ConsoleConsumer(self.bootstrap, self.group, self.topic, *arguments)
        self.running.append(one)
        return one

    def leave(self, one):
        self.running.remove(one)
        one.stop()

    def groups(self, *arguments):
        """kafka-consumer-groups; the rows of its table, as dictionaries by the column's name."""
        printed = java_tools.output("kafka-consumer-groups", "--bootstrap-server", self.bootstrap, *arguments)
        lines = [line.split() for line in printed.splitlines() if line.strip()]
        heads = [at for at, words in enumerate(lines) if words[0] == "GROUP"]
        if not heads:
            return []
        head = lines[heads[0]]
        return [dict(zip(head, words)) for words in lines[heads[0] + 1 :]]

    def committed(self):
        reader = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group, "log_level": QUIET})
        try:
            return [position.offset for position in reader.committed(parts(self.topic), timeout=5)]
        except KafkaException:
            return None
        finally:
            reader.close()

    def shares(self):
        """How many partitions each member has."""
        return sorted(row["#PARTITIONS"] for row in self.groups("--describe", "--group", self.group, "--members"))

    def wait_for_records(self, numbers, *consumers):
        def seen():
            return {int(line) for one in consumers for line in one.lines} >= set(numbers)

        self.wait_until(seen, f"not all of {numbers} came")

    def test_members_share_commit_and_take_over(self):
        fill(self.bootstrap, self.topic, RECORDS)
        first = self.join()
        self.wait_for_records(range(RECORDS), first)
        self.wait_until(lambda: self.committed() == [EACH] * PARTITIONS, "not committed")
        second = self.join()
        self.wait_until(lambda: self.shares() == ["2", "2"], "not shared")
        fill(self.bootstrap, self.topic, RECORDS, first=RECORDS)
        self.wait_for_records(range(2 * RECORDS), first, second)
        # One stops and commits what it read: the other goes on behind it.
        self.leave(first)
        fill(self.bootstrap, self.topic, RECORDS, first=2 * RECORDS)
        self.wait_for_records(range(2 * RECORDS, 3 * RECORDS), second)
        self.wait_until(lambda: self.committed() == [3 * EACH] * PARTITIONS, "not committed by the other")

    def test_a_killed_member_is_replaced(self):
        fill(self.bootstrap, self.topic, RECORDS)
        first = self.join()
        self.wait_for_records(range(RECORDS), first)
        second = self.join()
        self.wait_until(lambda: self.shares() == ["2", "2"], "not shared")
        self.running.remove(first)
        first.kill()
        fill(self.bootstrap, self.topic, RECORDS, first=RECORDS)
        self.wait_for_records(range(RECORDS, 2 * RECORDS), second)

    def test_administration(self):
        fill(self.bootstrap, self.topic, RECORDS)
        one = self.join("--command-property", "client.id=someone")
        self.wait_for_records(range(RECORDS), one)
        self.wait_until(lambda: self.committed() == [EACH] * PARTITIONS, "not committed")
        types = {row["GROUP"]: row["TYPE"] for row in self.groups("--list", "--type")}
        self.assertEqual(types[self.group], "Consumer")
        [state] = self.groups("--describe", "--group", self.group, "--state")
        self.assertEqual((state["STATE"], state["#MEMBERS"]), ("Stable", "1"))
        [row] = self.groups("--describe", "--group", self.group, "--members", "--verbose")
        self.assertEqual((row["CLIENT-ID"], row["#PARTITIONS"]), ("someone", str(PARTITIONS)))
        for row in self.groups("--describe", "--group", self.group):
            self.assertEqual((row["CURRENT-OFFSET"], row["LAG"]), (str(EACH), "0"))
        self.leave(one)
        self.assertEqual(self.groups("--describe", "--group", self.group, "--state")[0]["STATE"], "Empty")
        whole = ["--group", self.group, "--topic", self.topic]
        self.groups("--reset-offsets", "--to-earliest", "--execute", *whole)
        self.assertEqual(self.committed(), [0] * PARTITIONS)
        self.groups("--delete", "--group", self.group)
        gone = java_tools.run(
            "kafka-consumer-groups", "--bootstrap-server", self.bootstrap, "--describe", "--group", self.group
        )
        self.assertIn("GroupIdNotFoundException", gone.stdout + gone.stderr)


class JavaCoordinatorKilledTest(WaitingTest):
    KILLS = 2

    def test_a_member_goes_on_at_another_coordinator(self):
        cluster, group, topic = OwnCluster(settings=QUICK), "survivor-848", "work"
        self.addCleanup(cluster.close)
        cluster.start()
        client = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": QUIET})
        create_topic(topic, partitions=PARTITIONS, client=client)
        reader = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group, "log_level": QUIET})
        self.addCleanup(reader.close)

        def committed():
            try:
                return [position.offset for position in reader.committed(parts(topic), timeout=2)]
            except KafkaException:
                return None

        one = ConsoleConsumer(cluster.bootstrap, group, topic)
        try:
            sent = 0
            for _ in range(self.KILLS):
                fill(cluster.bootstrap, topic, RECORDS, first=sent)
                sent += RECORDS
                each = sent // PARTITIONS
                self.wait_until(lambda: committed() == [each] * PARTITIONS, "not committed")
                coordinator = self.wait_until(lambda: coordinator_of(cluster.bootstrap, group), "nobody coordinates")
                cluster.kill(coordinator)
                self.assertEqual(self.wait_until(committed, "nobody knows"), [each] * PARTITIONS)
                fill(cluster.bootstrap, topic, RECORDS, first=sent)
                sent += RECORDS
                each = sent // PARTITIONS
                self.wait_until(lambda: committed() == [each] * PARTITIONS, "the member does not go on")
                cluster.start()
            self.assertEqual({int(line) for line in one.lines}, set(range(sent)))
        finally:
            one.stop()

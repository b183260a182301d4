"""Apache Kafka's own tools: the Java client as people use it. Each start of a JVM takes a second, so a
test here goes through several things that belong together."""

import json
import re
import tempfile

import java_tools
from cluster import BOOTSTRAP, PATIENCE, CODECS, LARGEST_VALUE, ClusterTest, create_topic, recreate_topic, unused_name

# Fields are separated by tabs: headers, key, value.
LINES = [
    "h:1,other:x,h:2\tk\tv",
    "NULL\tNULL\tno key",
    "NULL\tno value\tNULL",
    "NULL\tNULL\tNULL",
    "NULL\t\t",
] + [f"NULL\tk{i}\t{'compressible ' * 20}{i}" for i in range(50)]


# kafka-verifiable-producer forbids retries unless told otherwise.
RETRIES = {"retries": 2147483647}


def tool(name, *arguments, text=None):
    return java_tools.output(name, "--bootstrap-server", BOOTSTRAP, *arguments, text=text)


def change(name, *arguments, done=None):
    """Runs a tool that must change something. One whose time was up, as in an election of controllers, is run again:
    what became of it nobody knows, and what it says when it is carried out already has `done`."""
    tries = 5
    for _ in range(tries):
        ran = java_tools.run(name, "--bootstrap-server", BOOTSTRAP, *arguments)
        said = ran.stdout + ran.stderr
        if ran.returncode == 0 or (done and done in said):
            return
        assert "TimeoutException" in said, f"{name} {arguments} failed: {said}"
    raise AssertionError(f"{name} {arguments} timed out {tries} times")


def fails(name, *arguments):
    """Runs a tool that must not succeed; everything it said."""
    done = java_tools.run(name, "--bootstrap-server", BOOTSTRAP, *arguments)
    assert done.returncode != 0, f"{name} {arguments} succeeded: {done.stdout}"
    return done.stdout + done.stderr


def properties(flag, **settings):
    return [word for key, value in settings.items() for word in (flag, f"{key.replace('_', '.')}={value}")]


def produce_lines(topic, lines, codec="none"):
    """kafka-console-producer; a line is headers, key and value."""
    tool(
        "kafka-console-producer", "--topic", topic, "--compression-codec", codec,
        # It drops lines, and says nothing, that four requests of 1.5 s each have not brought.
        "--request-timeout-ms", "60000", "--message-send-max-retries", "100",
        *properties("--reader-property", parse_key="true", parse_headers="true", null_marker="NULL"),
        text="".join(f"{line}\n" for line in lines),
    )  # fmt: skip


def consume_lines(topic, offset, count):
    """kafka-console-consumer without a group: as many lines as it was asked for, of partition 0."""
    printed = tool(
        "kafka-console-consumer", "--topic", topic, "--partition", "0", "--offset", offset,
        "--max-messages", str(count), "--timeout-ms", str(int(PATIENCE * 1000)),
        *properties("--formatter-property", print_offset="true", print_headers="true", print_key="true",
                    null_literal="NULL"),
    )  # fmt: skip
    return printed.splitlines()


def printed(offset, line):
    """A line of LINES as kafka-console-consumer prints it."""
    headers, rest = line.split("\t", 1)
    return f"Offset:{offset}\t{'NO_HEADERS' if headers == 'NULL' else headers}\t{rest}"


class JavaToolsTest(ClusterTest):
    def offsets(self, topic, when):
        lines = tool("kafka-get-offsets", "--topic", topic, "--time", str(when)).split()
        return {int(line.split(":")[1]): int(line.split(":")[2]) for line in lines}

    def test_topics(self):
        name = unused_name()
        options = ["--partitions", "2", "--replication-factor", "3", "--config", "retention.ms=5000"]
        change("kafka-topics", "--create", "--topic", name, *options, done="already exists")
        self.assertIn(name, tool("kafka-topics", "--list").split())
        self.assertIn("already exists", fails("kafka-topics", "--create", "--topic", name))
        too_many = fails("kafka-topics", "--create", "--topic", f"{name}-rf", "--replication-factor", "4")
        self.assertIn("InvalidReplicationFactorException", too_many)
        change("kafka-topics", "--alter", "--topic", name, "--partitions", "3", done="InvalidPartitionsException")
        described = tool("kafka-topics", "--describe", "--topic", name)
        self.assertIn("PartitionCount: 3\tReplicationFactor: 3\tConfigs: retention.ms=5000", described)
        leaders = re.findall(r"Leader: (\d)\tReplicas: (\d),\d,\d\tIsr: \d,\d,\d", described)
        self.assertEqual(len(leaders), 3, described)
        self.assertEqual({leader for leader, _ in leaders}, {"1", "2", "3"}, "leaders are spread")
        self.assertTrue(all(leader == preferred for leader, preferred in leaders), described)
        change("kafka-topics", "--delete", "--topic", name, done="does not exist")
        self.assertIn("does not exist", fails("kafka-topics", "--describe", "--topic", name))

    def test_each_codec_and_every_kind_of_record(self):
        topic = create_topic()
        for codec in CODECS:
            produce_lines(topic, LINES, codec)
        count = len(LINES) * len(CODECS)
        expected = [printed(offset, LINES[offset % len(LINES)]) for offset in range(count)]
        self.assertEqual(consume_lines(topic, "earliest", count), expected)
        self.assertEqual(consume_lines(topic, str(count - 7), 7), expected[-7:])

    def test_offsets_and_deletion_of_records(self):
        # Its records are old: retention would have them.
        topic = create_topic(partitions=2, config={"retention.ms": "-1"})
        start = 1_700_000_000_000
        producer = java_tools.Running(
            "kafka-verifiable-producer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--max-messages", "10",
            "--repeating-keys", "1", "--message-create-time", str(start), config=RETRIES,
        )  # fmt: skip
        self.addCleanup(producer.end)
        self.wait_until(producer.has_ended, "the producer does not end")
        # One key: one partition has everything.
        ends = self.offsets(topic, "latest")
        self.assertEqual(sorted(ends.values()), [0, 10])
        [full] = [partition for partition, end in ends.items() if end == 10]
        self.assertEqual(self.offsets(topic, "earliest"), {0: 0, 1: 0})
        newest = self.offsets(topic, "max-timestamp")
        self.assertEqual(newest, {full: 9})
        self.assertEqual(self.offsets(topic, start)[full], 0)
        self.assertNotIn(full, self.offsets(topic, start + 3_600_000), "nothing is that new")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as request:
            json.dump({"version": 1, "partitions": [{"topic": topic, "partition": full, "offset": 4}]}, request)
            request.flush()
            self.assertIn("low_watermark: 4", tool("kafka-delete-records", "--offset-json-file", request.name))
        self.assertEqual(self.offsets(topic, "earliest")[full], 4)

    def test_configs(self):
        def entity(kind, name):
            return ["--entity-type", kind, *(["--entity-default"] if name is None else ["--entity-name", name])]

        def describe(kind, name, *arguments):
            return tool("kafka-configs", *entity(kind, name), "--describe", *arguments)

        topic = create_topic()
        for kind, name, key, value, source in [
            ("topics", topic, "retention.ms", "5000", "DYNAMIC_TOPIC_CONFIG"),
            ("brokers", "1", "log.retention.ms", "604800002", "DYNAMIC_BROKER_CONFIG"),
            ("brokers", None, "log.retention.ms", "604800001", "DYNAMIC_DEFAULT_BROKER_CONFIG"),
        ]:
            with self.subTest(kind=kind, name=name):
                change("kafka-configs", *entity(kind, name), "--alter", "--add-config", f"{key}={value}")
                expected = f"{key}={value} sensitive=false synonyms={{{source}:"
                # Any broker may be asked, and each takes the change over in its own time.
                self.wait_until(lambda: expected in describe(kind, name), "the change is not seen")
                change("kafka-configs", *entity(kind, name), "--alter", "--delete-config", key)
                self.wait_until(lambda: key not in describe(kind, name), "the deletion is not seen")
        self.assertIn("flush.messages=1 ", describe("topics", topic, "--all"))
        wrong = ["--entity-type", "topics", "--entity-name", topic, "--alter", "--add-config", "retention.ms=soon"]
        self.assertIn("InvalidConfigurationException", fails("kafka-configs", *wrong))

    def test_the_cluster(self):
        self.assertRegex(java_tools.output("kafka-cluster", "cluster-id", "--bootstrap-server", BOOTSTRAP), r"Cluster ID: \S{22}\n")
        versions = tool("kafka-broker-api-versions")
        self.assertEqual(len(re.findall(r"\(id: [123] rack: null isFenced: false\)", versions)), 3)
        self.assertEqual(versions.count("Produce(0): 0 to 13 [usable: 13]"), 3)
        topic = create_topic()
        election = ["--election-type", "preferred", "--topic", topic, "--partition", "0"]
        self.assertIn("already elected", tool("kafka-leader-election", *election))

    def test_log_directories(self):
        topic = create_topic(partitions=2)
        produce_lines(topic, LINES)
        sizes = {}

        def are_alike():
            said = tool("kafka-log-dirs", "--describe", "--topic-list", topic)
            [described] = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
            sizes.clear()
            for broker in described["brokers"]:
                for directory in broker["logDirs"]:
                    self.assertIsNone(directory["error"], said)
                    for partition in directory["partitions"]:
                        self.assertFalse(partition["isFuture"])
                        self.assertEqual(partition["offsetLag"], 0)
                        sizes.setdefault(partition["partition"], []).append(partition["size"])
            return all(len(found) == 3 and len(set(found)) == 1 for found in sizes.values())

        # A replica that is not in sync gets the same later.
        self.wait_until(are_alike, lambda: f"replicas differ: {sizes}")
        self.assertEqual(sizes.keys(), {f"{topic}-0", f"{topic}-1"})
        self.assertGreater(max(max(found) for found in sizes.values()), 0)

    def test_the_default_producer_at_full_speed(self):
        """Idempotent with acks=all: the Java client's defaults."""
        topic = create_topic(partitions=3)
        size = ["--num-records", "30000", "--record-size", "500", "--throughput", "-1"]
        self.assertIn("30000 records sent", tool("kafka-producer-perf-test", "--topic", topic, *size))
        self.assertEqual(sum(self.offsets(topic, "latest").values()), 30000)

    def test_the_largest_record(self):
        topic = create_topic()
        for size, sent in [(LARGEST_VALUE, "1 records sent"), (LARGEST_VALUE + 1, "0 records sent")]:
            done = java_tools.run(
                "kafka-producer-perf-test", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--num-records", "1",
                "--record-size", str(size), "--throughput", "-1", "--command-property", "max.request.size=2000000",
            )  # fmt: skip
            self.assertIn(sent, done.stdout)
            self.assertEqual("RecordTooLargeException" in done.stderr, size > LARGEST_VALUE, done.stderr)
        [line] = consume_lines(topic, "earliest", 1)
        self.assertEqual(len(line.rsplit("\t", 1)[1]), LARGEST_VALUE)

    def test_a_transactional_producer_fails_at_once(self):
        topic = create_topic()
        said = fails(
            "kafka-producer-perf-test", "--topic", topic, "--num-records", "1", "--record-size", "10",
            "--throughput", "-1", "--transactional-id", "t",
        )  # fmt: skip
        # Not TimeoutException, which is what it says when it hung.
        self.assertIn("TransactionalIdAuthorizationException", said)

    def test_a_topic_deleted_and_created_again_under_its_users(self):
        topic = create_topic()
        place = ["--bootstrap-server", BOOTSTRAP, "--topic", topic]
        writer = java_tools.Running("kafka-verifiable-producer", *place, "--throughput", "100", config=RETRIES)
        reader = java_tools.Running("kafka-console-consumer", *place, "--partition", "0", "--offset", "earliest")
        self.addCleanup(reader.end)
        self.addCleanup(writer.end)

        def acknowledgements():
            events = [json.loads(line) for line in list(writer.lines)]
            return [(int(e["value"]), e["offset"]) for e in events if e["name"] == "producer_send_success"]

        self.wait_until(lambda: len(acknowledgements()) > 50, "nothing is acknowledged")
        self.wait_until(lambda: len(reader.lines) > 50, "nothing is read")
        recreate_topic(topic)

        def new_ones():
            # Offsets of the new topic begin at 0 again.
            pairs = acknowledgements()
            first = next((i for i in range(1, len(pairs)) if pairs[i][1] < pairs[i - 1][1]), len(pairs))
            return pairs[first:]

        acknowledged = self.wait_until(lambda: len(new_ones()) > 50 and new_ones(), "nothing reaches the new topic")

        def new_ones_read():
            # Where the new topic has grown past the reader's old offset before it comes back, it goes on from there.
            read = set(reader.lines)
            return any(str(value) in read for value, _ in new_ones())

        self.wait_until(new_ones_read, "the reader sees nothing new")
        writer.end()
        count = acknowledged[-1][1] + 1
        values = [int(line.rsplit("\t", 1)[1]) for line in consume_lines(topic, "earliest", count)]
        self.assertEqual(values, sorted(set(values)), "doubled or reordered")
        old = [value for value, _ in acknowledgements() if value < acknowledged[0][0]]
        self.assertEqual(set(values) & set(old), set(), "something of the old topic is there")
        for value, offset in acknowledged:
            self.assertEqual(values[offset], value)

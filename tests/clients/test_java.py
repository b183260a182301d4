"""Apache Kafka's own tools: the Java client as people use it. Each start of a JVM takes a second, so a
test here goes through several things that belong together."""

import json
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

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


def tool(name, *arguments, text=None):
    return java_tools.output(name, "--bootstrap-server", BOOTSTRAP, *arguments, text=text)


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
        tool("kafka-topics", "--create", "--topic", name, *options)
        self.assertIn(name, tool("kafka-topics", "--list").split())
        self.assertIn("already exists", fails("kafka-topics", "--create", "--topic", name))
        too_many = fails("kafka-topics", "--create", "--topic", f"{name}-rf", "--replication-factor", "4")
        self.assertIn("InvalidReplicationFactorException", too_many)
        tool("kafka-topics", "--alter", "--topic", name, "--partitions", "3")
        described = tool("kafka-topics", "--describe", "--topic", name)
        self.assertIn("PartitionCount: 3\tReplicationFactor: 3\tConfigs: retention.ms=5000", described)
        leaders = re.findall(r"Leader: (\d)\tReplicas: (\d),\d,\d\tIsr: \d,\d,\d", described)
        self.assertEqual(len(leaders), 3, described)
        self.assertEqual({leader for leader, _ in leaders}, {"1", "2", "3"}, "leaders are spread")
        self.assertTrue(all(leader == preferred for leader, preferred in leaders), described)
        tool("kafka-topics", "--delete", "--topic", name)
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
        topic = create_topic(partitions=2)
        start = 1_700_000_000_000
        tool(
            "kafka-verifiable-producer", "--topic", topic, "--max-messages", "10",
            "--repeating-keys", "1", "--message-create-time", str(start),
        )  # fmt: skip
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
        def configs(kind, name, *arguments):
            entity = ["--entity-default"] if name is None else ["--entity-name", name]
            return tool("kafka-configs", "--entity-type", kind, *entity, *arguments)

        topic = create_topic()
        for kind, name, key, value, source in [
            ("topics", topic, "retention.ms", "5000", "DYNAMIC_TOPIC_CONFIG"),
            ("brokers", "1", "log.retention.ms", "604800002", "DYNAMIC_BROKER_CONFIG"),
            ("brokers", None, "log.retention.ms", "604800001", "DYNAMIC_DEFAULT_BROKER_CONFIG"),
        ]:
            with self.subTest(kind=kind, name=name):
                configs(kind, name, "--alter", "--add-config", f"{key}={value}")
                self.assertIn(f"{key}={value} sensitive=false synonyms={{{source}:", configs(kind, name, "--describe"))
                configs(kind, name, "--alter", "--delete-config", key)
                self.assertNotIn(key, configs(kind, name, "--describe"))
        self.assertIn("flush.messages=1 ", configs("topics", topic, "--describe", "--all"))
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
        began = time.monotonic()
        said = fails(
            "kafka-producer-perf-test", "--topic", topic, "--num-records", "1", "--record-size", "10",
            "--throughput", "-1", "--transactional-id", "t",
        )  # fmt: skip
        self.assertIn("TransactionalIdAuthorizationException", said)
        self.assertLess(time.monotonic() - began, PATIENCE / 2, "it hung")

    def test_a_topic_deleted_and_created_again_under_its_users(self):
        topic = create_topic()
        writer = Tool("kafka-verifiable-producer", "--topic", topic, "--throughput", "100", retries=True)
        reader = Tool("kafka-console-consumer", "--topic", topic, "--partition", "0", "--offset", "earliest")
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
        self.wait_until(
            lambda: str(acknowledged[-1][0]) in list(reader.lines), f"the reader sees nothing new: {reader.lines[-3:]}"
        )
        writer.end()
        count = acknowledged[-1][1] + 1
        values = [int(line.rsplit("\t", 1)[1]) for line in consume_lines(topic, "earliest", count)]
        self.assertEqual(values, sorted(set(values)), "doubled or reordered")
        old = [value for value, _ in acknowledgements() if value < acknowledged[0][0]]
        self.assertEqual(set(values) & set(old), set(), "something of the old topic is there")
        for value, offset in acknowledged:
            self.assertEqual(values[offset], value)


class Tool:
    """A tool that runs until it is ended; `lines` is what it has printed."""

    def __init__(self, name, *arguments, retries=False):
        self.lines = []
        self._folder = tempfile.TemporaryDirectory()
        if retries:
            # kafka-verifiable-producer forbids them unless told otherwise.
            config = Path(self._folder.name) / "client.properties"
            config.write_text("retries=2147483647\n")
            arguments += ("--command-config", str(config))
        command = java_tools.command(name, "--bootstrap-server", BOOTSTRAP, *arguments)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def end(self):
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join()
        self._process.stdout.close()
        self._folder.cleanup()

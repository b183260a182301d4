"""What is done to one cluster in one round, the same on both sides."""

import os
import subprocess
import time
from pathlib import Path

from .client import Failed
from .clusters import BROKERS

# flush.messages: 1 is a flush before every acknowledgement; the largest number is Kafka's default, none.
FLUSH = {"fsync": 1, "page cache": 9223372036854775807}
PARTITIONS = (1, 12)
RECORD_BYTES = 1024
PACED_PER_SECOND = 1000
# librdkafka polls without a pause while it has batches ready and five requests on their way, a whole core at
# worst. What brokers can use of that core, they get.
SATURATING_NICENESS = 10
# Until the files of a deleted topic have gone.
SETTLE_SECONDS = 20
SETTLED_BYTES = 256 << 20


class Lengths:
    """Seconds that the windows are open."""

    def __init__(self, seconds):
        self.saturated = seconds
        self.consume = seconds
        self.paced = seconds / 2
        self.warm_up = min(10, seconds)


class Turn:
    """One side's part of one round; figures are handed to `keep` as they come."""

    # Keys that this comparison adds to every node's.
    PROPERTIES = {}

    def __init__(self, cluster, client, seconds, say, keep):
        self.cluster, self.client, self.lengths, self.say, self.keep = cluster, client, Lengths(seconds), say, keep

    def start(self):
        """Starts the cluster, and does with it what is not measured."""
        since = self.cluster.start()
        ready = self.client.call(
            "ready", "--bootstrap", self.cluster.bootstrap, "--brokers", BROKERS, "--since", since, timeout=150
        )
        self.keep({"what": "start", **ready})
        self.say(f"ready after {ready['first_acknowledgement_ms'] / 1000:.2f} s; warming up")
        self.warm_up()

    def warm_up(self):
        """Nothing is measured here: a JVM compiles, connections are made, pools grow."""
        topic = self.create("warm-up", 12, FLUSH["page cache"])
        self.produce(topic, self.lengths.warm_up)
        self.consume(topic, self.lengths.warm_up / 2)
        self.delete(topic)

    def create(self, name, partitions, flush_messages, **configs):
        """`configs` have underscores for the dots in their names."""
        configs = self.configs(flush_messages, **configs)
        self.client.call(
            "create-topic", *self.at(name), "--partitions", partitions, "--replication-factor", BROKERS, *configs,
            timeout=60,
        )  # fmt: skip
        return name

    @staticmethod
    def configs(flush_messages, **configs):
        """Of a topic, as arguments."""
        configs |= {"flush_messages": flush_messages, "min_insync_replicas": 2}
        for key, value in configs.items():
            yield from ("--config", f"{key.replace('_', '.')}={value}")

    def produce(self, topic, seconds, *pace):
        figures = self.client.call(
            "produce", *self.at(topic), *self.window(seconds), "--record-bytes", RECORD_BYTES, *pace,
            timeout=seconds + 60, niceness=0 if pace else SATURATING_NICENESS,
        )  # fmt: skip
        return produced(figures)

    def consume(self, topic, seconds):
        return self.client.call("consume", *self.at(topic), *self.window(seconds), timeout=seconds + 60)

    def delete(self, topic):
        """And waits until its memory and its disk are free again."""
        self.client.call("delete-topic", *self.at(topic), timeout=60)
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.cluster.data_bytes() > SETTLED_BYTES and time.monotonic() < deadline:
            time.sleep(0.2)
        self.settle()

    def settle(self):
        """What is left of earlier rows is written now and not during the next."""
        try:
            subprocess.run(["sync"], timeout=SETTLE_SECONDS)
        except subprocess.TimeoutExpired:
            self.say("the disk is still busy")

    def failed(self, what, row, failure):
        """As long as all processes live, whatever else is to be measured still can be."""
        self.cluster.check()
        self.say(f"{', '.join(str(value) for value in (*row.values(), what))} FAILED: {failure}")
        self.keep({"what": what, **row, "failure": str(failure)})

    def at(self, topic):
        return ("--bootstrap", self.cluster.bootstrap, "--topic", topic)

    def window(self, seconds):
        return (
            "--seconds", seconds,
            "--pids", f"brokers={self.cluster.pids('brokers')}",
            "--pids", f"controllers={self.cluster.pids('controllers')}",
        )  # fmt: skip


def produced(figures):
    """Figures in which nothing failed."""
    if not figures["records"]:
        raise Failed("no record was acknowledged in the window")
    if figures["failed"] or not figures["drained"]:
        raise Failed(f"{figures['failed']} records failed: {figures['first_failure']}")
    return figures


class Round(Turn):
    """Records: how many, how soon, at what cost."""

    def run(self):
        self.start()
        for partitions in PARTITIONS:
            for flush in FLUSH:
                self.row(partitions, flush)
        self.keep({"what": "memory", "peak_mib": self.cluster.peak_memory_mib()})

    def row(self, partitions, flush):
        """A failure is kept, and the next row is tried, as long as all processes live."""
        row = {"partitions": partitions, "flush": flush}
        steps = {
            "paced": lambda topic: self.produce(topic, self.lengths.paced, "--rate", PACED_PER_SECOND, "--linger-ms", 0),
            "produce": lambda topic: self.produce(topic, self.lengths.saturated),
            "consume": lambda topic: self.consume(topic, self.lengths.consume),
        }
        try:
            topic = self.create(f"row-{partitions}-{FLUSH[flush]}", partitions, FLUSH[flush])
        except Failed as failure:
            self.failed("create", row, failure)
            return
        for what, step in steps.items():
            load = os.getloadavg()[0]
            try:
                figures = step(topic)
            except Failed as failure:
                self.failed(what, row, failure)
                continue
            self.keep({"what": what, **row, "load_average_before": load, **figures})
            self.say(f"{partitions:>2} partitions, {flush}, {what}: {brief(figures)}")
        try:
            self.delete(topic)
        except Failed as failure:
            self.failed("delete", row, failure)


def cpu_seconds_per_gb(figures, group):
    """CPU-seconds of a group of processes for 10^9 bytes of payload."""
    return figures["cpu_seconds"][group] / (figures["payload_bytes"] / 1e9) if figures["payload_bytes"] else None


def brief(figures):
    text = f"{figures['records_per_second']:,.0f} records/s"
    if latency := figures.get("acknowledgement_ms"):
        text += f", acknowledged p50 {latency['p50']:.2f} p99 {latency['p99']:.2f} ms"
    if (cost := cpu_seconds_per_gb(figures, "brokers")) is not None:
        text += f", brokers {cost:.2f} CPU s/GB"
    return text


def machine():
    """What the figures were taken on."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        "unknown",
    )  # fmt: skip
    memory_kib = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 1024 / 1024, 1),
        "kernel": os.uname().release,
    }

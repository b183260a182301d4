"""Kills the broker that coordinates groups, at moments that the groups choose, and brings it back."""

import itertools
import math
import queue
import threading
import time

from confluent_kafka import KafkaException

from cluster import wait_until
from group_run import SESSION_MS, ClusterUnderTest, name_of
from own_cluster import GROUP_TIMES, OwnCluster

_OFFSETS_TOPIC, _OFFSETS_PARTITIONS = "__consumer_offsets", 50
# Members come one by one here: nothing is won by waiting three seconds for the next.
_SETTINGS = ["group.initial.rebalance.delay.ms=500", *GROUP_TIMES]
# Seconds until the next kill at the earliest: each new coordinator gives every member a new session, and those that left
# without being heard must go some time.
_BETWEEN_KILLS = 1.5 * SESSION_MS / 1000
# Seconds until a group is tried again for which it was too early.
_NOT_YET = 0.2


def partition_of(group):
    """The partition of __consumer_offsets that a group belongs to: Java's hash of its name."""
    hashed = 0
    for letter in group:
        hashed = (31 * hashed + ord(letter)) & 0xFFFF_FFFF
    return (hashed & 0x7FFF_FFFF) % _OFFSETS_PARTITIONS


class CoordinatorKiller:
    """A cluster of its own, on which all groups have the same coordinator; use as a context.

    One kill strikes every group that lives then: `kills` of each gets the step that it was in.
    """

    def __init__(self, seed, log):
        self._partition = seed % _OFFSETS_PARTITIONS
        self._log = log
        self._processes = OwnCluster(settings=_SETTINGS)
        self._wanted = queue.Queue()
        self._alive = []
        self._thread = threading.Thread(target=self._run)
        self._numbers = itertools.count()
        self._not_before = 0.0

    def __enter__(self):
        self._processes.start()
        self.cluster = ClusterUnderTest(self._processes.bootstrap)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._wanted.put(None)
        self._thread.join()
        self._processes.close()

    def group_name(self, row):
        """A name for a group, of this coordinator."""
        names = (f"{name_of(row)}-{number}" for number in self._numbers)
        return next(name for name in names if partition_of(name) == self._partition)

    def watch(self, run):
        """This run's group is struck by every kill from now on, until `forget`."""
        self._alive.append(run)

    def forget(self, run):
        self._alive.remove(run)

    def wait_until_ready(self, run):
        """Returns when the coordinator may die again, or has died under this run."""
        wait_until(lambda: run.kills or time.monotonic() >= self._not_before, "the last kill is never over")

    def strike_soon(self, run, delay):
        """In `delay` seconds the coordinator's broker dies, unless it has died under this run before."""
        timer = threading.Timer(delay, self._wanted.put, [run])
        timer.daemon = True
        timer.start()

    def complaints(self, count=40):
        """What the brokers said last that was not good."""
        lines = []
        for path in sorted(self._processes.data.glob("logs/*.log")):
            text = path.read_text(errors="replace").splitlines()
            lines += [f"{path.stem}: {line}" for line in text if " WARN " in line or " ERROR " in line][-count:]
        return lines

    def keep_logs(self, folder):
        """Copies what the brokers and controllers have said."""
        self._processes.keep_logs(folder)

    def _run(self):
        while (run := self._wanted.get()) is not None:
            if run.kills or run not in self._alive:
                continue
            if not run.can_be_struck or time.monotonic() < self._not_before:
                self.strike_soon(run, _NOT_YET)
            else:
                began = time.monotonic()
                try:
                    self._strike()
                except (AssertionError, KafkaException, OSError) as failure:
                    self._log(f"not killed: {type(failure).__name__}: {failure}")
                self._not_before = began + _BETWEEN_KILLS

    def _strike(self):
        # Until everything is as it was.
        self._not_before = math.inf
        broker = wait_until(self._coordinator, "nobody coordinates")
        struck = [run for run in list(self._alive) if run.can_be_struck]
        self._processes.kill(broker)
        began = time.monotonic()
        for run in struck:
            run.kills.append(run.step)
        self._log(f"broker {broker}, the coordinator, killed under " + "; ".join(map(str, struck)))
        wait_until(lambda: self._coordinator() not in (None, broker), "nobody takes over")
        self._log(f"another one leads the groups {time.monotonic() - began:.2f} s later")
        self._processes.start()
        wait_until(self._is_whole, "a replica stays out of the ISR")

    def _coordinator(self):
        """The leader of the groups' partition; none while there is none, or nobody to ask."""
        try:
            topic = self.cluster.admin.list_topics(_OFFSETS_TOPIC, timeout=10).topics[_OFFSETS_TOPIC]
        except KafkaException:
            return None
        part = topic.partitions.get(self._partition)
        return part.leader if part and part.leader > 0 else None

    def _is_whole(self):
        """One broker at a time is down: the next kill waits until every replica is back."""
        try:
            topics = self.cluster.admin.list_topics(timeout=10).topics.values()
        except KafkaException:
            return False
        parts = [part for topic in topics for part in topic.partitions.values()]
        return all(len(part.isrs) == len(part.replicas) and part.leader > 0 for part in parts)

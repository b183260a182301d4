"""Groups: how soon they form, how soon a member's partitions are taken over, how many commits there are a second,
and what the death of a coordinator costs."""

import time

from . import cleaner, wire
from .client import Failed
from .clusters import BROKERS
from .measure import FLUSH, Turn
from .members import Group

PARTITIONS_OF_OFFSETS = 50
SESSION_MS, HEARTBEAT_MS = 6000, 500
# Both sides' default is 3 s. It would only be added to every figure of a group's formation, once or twice.
FORMATION_DELAY_MS = 500
# Members and partitions of a group that forms.
LARGE, LARGE_PARTITIONS = 100, 200
# Members that stay while another goes, and their partitions.
STAYING, SHARED_PARTITIONS = 3, 12
COMMIT_EVERY_MS = 20
# Groups, members of each, and commits on their way of each member.
SHAPES = {
    "one member, one at a time": (1, 1, 1),
    "one group of 16, 128 at a time": (1, 16, 8),
    "100 groups of one, 200 at a time": (100, 1, 2),
}
# What the two sides give a topic of their own making, but for flush.messages.
OFFSETS_CONFIGS = {"cleanup_policy": "compact", "compression_type": "producer", "segment_bytes": 100 << 20}
PATIENCE = 90


class Repetitions:
    """How much is done in one turn; `seconds` is what the windows of the other comparison are."""

    def __init__(self, seconds):
        short = seconds < 10
        self.warm_up = 3 if short else 4
        self.commits = 3 if short else 4
        self.kills = 1
        self.leaves = 1 if short else 2
        self.failovers = 1 if short else 2


class GroupsTurn(Turn):
    """One side's part of one round."""

    PROPERTIES = {
        "group.initial.rebalance.delay.ms": FORMATION_DELAY_MS,
        # Of the protocol of KIP-848, in which brokers say them; the least that they may be comes first.
        "group.consumer.min.session.timeout.ms": SESSION_MS,
        "group.consumer.session.timeout.ms": SESSION_MS,
        "group.consumer.min.heartbeat.interval.ms": HEARTBEAT_MS,
        "group.consumer.heartbeat.interval.ms": HEARTBEAT_MS,
    } | cleaner.PROPERTIES

    def __init__(self, cluster, client, seconds, say, keep):
        super().__init__(cluster, client, seconds, say, keep)
        self.repetitions = Repetitions(seconds)
        self.cleaner_lengths = cleaner.Lengths(seconds)
        self.groups = 0

    def run(self):
        self.lengths.warm_up = self.repetitions.warm_up
        self.start()
        self.first_group()
        self.warm_up_commits()
        for protocol in self.protocols():
            self.attempt("formation", {"protocol": protocol}, self.formation)
            self.attempt("takeover", {"protocol": protocol}, self.takeovers)
        for flush in FLUSH:
            self.attempt("cleaner", {"flush": flush}, lambda row: cleaner.measure(self, row, self.cleaner_lengths))
        for flush in FLUSH:
            self.attempt("flush of offsets", {"flush": flush}, self.commits)
        self.attempt("failover", {}, self.failovers)

    def attempt(self, what, row, step):
        """What fails is kept, and the next is tried."""
        try:
            step(row)
        except (Failed, wire.Refused, OSError) as failure:
            self.failed(what, row, failure)

    def measured(self, what, row, **figures):
        self.keep({"what": what, **row, **figures})
        shown = ", ".join(f"{key} {value:,.1f}" for key, value in figures.items() if isinstance(value, float))
        self.say(f"{', '.join((*map(str, row.values()), what))}: {shown}")

    def addresses(self, *but):
        """Of the brokers, without some nodes."""
        return [("127.0.0.1", self.cluster.base_port + i) for i in range(BROKERS) if i + 1 not in but]

    def protocols(self):
        """KIP-848 only where it is advertised."""
        has = all(wire.CONSUMER_GROUP_HEARTBEAT in wire.advertised(address) for address in self.addresses())
        self.keep({"what": "protocols", "consumer": has})
        if not has:
            self.say("the protocol of KIP-848 is not advertised")
        return ("classic", "consumer") if has else ("classic",)

    def group(self, topic, partitions, protocol, *options, quick_heartbeats=True):
        """A new group; brokers give their own timeouts to members of the protocol of KIP-848."""
        self.groups += 1
        timeouts = ()
        if quick_heartbeats and protocol == "classic":
            timeouts = ("--session-timeout-ms", SESSION_MS, "--heartbeat-interval-ms", HEARTBEAT_MS)
        return Group(
            self.client.program, self.cluster.bootstrap, topic, partitions, f"group-{self.groups}",
            "--protocol", protocol, *timeouts, *options,
        )  # fmt: skip

    def first_group(self):
        """One member of a group on a cluster that never had one: __consumer_offsets comes into being."""
        topic = self.create("first", 1, FLUSH["page cache"])
        with self.group(topic, 1, "classic") as group:
            member = group.add(1)
            stable = group.await_stable(1, PATIENCE)
            self.measured("first group", {}, ms=(stable - member.started_at) * 1000)
            group.dissolve(10)
        self.delete(topic)

    def warm_up_commits(self):
        """Not measured: a JVM compiles."""
        topic = self.create("warm-up-commits", 16, FLUSH["page cache"])
        self.commit_load(topic, "warm-up", 1, 16, 8, self.repetitions.warm_up)
        self.delete(topic)

    def formation(self, row):
        """A hundred members that start at once, and one more."""
        topic = self.create(f"large-{row['protocol']}", LARGE_PARTITIONS, FLUSH["page cache"])
        with self.group(topic, LARGE_PARTITIONS, row["protocol"]) as group:
            members = group.add(LARGE)
            stable = group.await_stable(LARGE, PATIENCE)
            begun = members.started_at
            one_more = group.add(1)
            grown = group.await_stable(LARGE + 1, PATIENCE)
            self.measured(
                "formation", row, members=LARGE, partitions=LARGE_PARTITIONS,
                stable_ms=(stable - begun) * 1000, clients_ms=(members.subscribed_at - begun) * 1000,
                grown_ms=(grown - one_more.started_at) * 1000,
            )  # fmt: skip
            group.dissolve(15)
        self.delete(topic)

    def takeovers(self, row):
        """One member goes, three stay: by kill -9, and with a goodbye."""
        topic = self.create(f"shared-{row['protocol']}", SHARED_PARTITIONS, FLUSH["page cache"])
        with self.group(topic, SHARED_PARTITIONS, row["protocol"]) as group:
            group.add(STAYING)
            for how, times in (("kill", self.repetitions.kills), ("leave", self.repetitions.leaves)):
                for _ in range(times):
                    victim = group.add(1)
                    group.await_stable(STAYING + 1, PATIENCE)
                    if how == "kill":
                        went = victim.kill()
                        group.lose(victim)
                    else:
                        group.lose(victim)
                        victim.leave()
                        group.wait(lambda victim=victim: victim.left_at, 10, lambda: "a member does not leave")
                        went = victim.left_at
                    taken = group.await_stable(STAYING, PATIENCE)
                    self.measured(
                        "takeover", row | {"how": how}, session_timeout_ms=SESSION_MS, ms=(taken - went) * 1000
                    )
            group.dissolve(10)
        self.delete(topic)

    def commits(self, row):
        """The offsets topic is flushed as its configuration says: so that like is set against like."""
        configs = self.configs(FLUSH[row["flush"]], **OFFSETS_CONFIGS)
        self.client.call("alter-topic", *self.at("__consumer_offsets"), *configs, timeout=30)
        topic = self.create(f"committed-{FLUSH[row['flush']]}", 16, FLUSH["page cache"])
        for shape, (groups, members, in_flight) in SHAPES.items():
            place = row | {"shape": shape}
            try:
                name = f"commits-{FLUSH[row['flush']]}-{groups}-{members}"
                figures = self.commit_load(topic, name, groups, members, in_flight, self.repetitions.commits)
            except Failed as failure:
                self.failed("commits", place, failure)
                continue
            self.measured(
                "commits", place, **figures, p50=figures["commit_ms"]["p50"], p99=figures["commit_ms"]["p99"]
            )
        self.delete(topic)

    def commit_load(self, topic, name, groups, members, in_flight, seconds):
        figures = self.client.call(
            "commits", *self.at(topic), *self.window(seconds), "--warm-up-seconds", 1,
            "--group", name, "--groups", groups, "--members", members, "--in-flight", in_flight,
            "--session-timeout-ms", SESSION_MS, "--heartbeat-interval-ms", HEARTBEAT_MS,
            timeout=seconds + 150,
        )  # fmt: skip
        if figures["failed"]:
            raise Failed(f"{figures['failed']} commits failed: {figures['first_failure']}")
        if not figures["commits"]:
            raise Failed("no commit was acknowledged in the window")
        return figures

    def failovers(self, row):
        """The broker that coordinates a group gets kill -9, again and again. Members have the client's own session
        timeout (45 s): they are to outlive it."""
        topic = self.create("failover", SHARED_PARTITIONS, FLUSH["page cache"])
        options = ("--commit-every-ms", COMMIT_EVERY_MS)
        with self.group(topic, SHARED_PARTITIONS, "classic", *options, quick_heartbeats=False) as group:
            group.add(STAYING)
            group.await_stable(STAYING, PATIENCE)
            for _ in range(self.repetitions.failovers):
                self.in_sync("__consumer_offsets", PARTITIONS_OF_OFFSETS)
                self.failover(row, group, topic)
            group.dissolve(10)

    def failover(self, row, group, topic):
        group.watch_commits(time.time())
        self.await_commits(group, "before the kill")
        victim, _ = wire.find_coordinator(self.addresses()[0], group.name)
        other = wire.neighbour(group.name, PARTITIONS_OF_OFFSETS)
        probe = wire.Probe(self.addresses(victim), other, topic, PATIENCE)
        broker = self.cluster.broker(victim)
        killed = time.time()
        group.watch_commits(killed)
        broker.kill_at_once()
        try:
            probe.start()
            broker.kill()
            self.await_commits(group, "after the kill")
            all_at = max(group.acknowledged.values())
            # A rebalance may come of it all the same.
            group.settle()
            stable = group.await_stable(STAYING, PATIENCE)
            probe.join(PATIENCE)
            if probe.acknowledged_at is None:
                raise Failed(f"no commit was acknowledged after the kill: {probe.last_refusal}")
            self.measured(
                "failover", row,
                probe_ms=(probe.acknowledged_at - killed) * 1000,
                first_ms=(min(group.acknowledged.values()) - killed) * 1000,
                stable_ms=(max(stable, all_at) - killed) * 1000,
                rebalanced=stable > killed,
            )  # fmt: skip
        finally:
            broker.kill()
            self.cluster.restart(victim)

    def await_commits(self, group, when):
        """Until each member has had one acknowledged."""
        group.wait(
            lambda: len(group.acknowledged) == STAYING,
            PATIENCE,
            lambda: f"{len(group.acknowledged)} of {STAYING} members' commits were acknowledged {when}",
        )

    def in_sync(self, topic, partitions):
        self.client.call(
            "wait-in-sync", *self.at(topic), "--partitions", partitions, "--replication-factor", BROKERS,
            "--patience", 120, timeout=150,
        )  # fmt: skip

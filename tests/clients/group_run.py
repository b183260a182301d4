"""One group living through a scenario: its members, the records that flow past them, and who watches."""

import functools
import random
import re
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cluster import PATIENCE, QUIET, NeverHappened, add_partitions, configure_group, create_topic, delete_topic, wait_until
from guarantees import History
from members import CONSUMER, Member

# The shortest session that a broker grants; one that ends by itself only where a member is lost; and one that never does.
SHORTEST_SESSION_MS, SESSION_MS, _LONG_SESSION_MS = 6_000, 10_000, 45_000
# A record is produced this often, in seconds, and the committed offsets are asked for that often.
_PRODUCE_EVERY = 0.02
_OBSERVE_EVERY = 0.3


def name_of(row):
    """A row's name, as far as topics and groups may have it."""
    return re.sub(r"[^a-zA-Z0-9]+", "-", str(row)).strip("-")


class ClusterUnderTest:
    """Where the cluster is that runs have, and topics on it."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": QUIET})

    def create_topic(self, name, partitions):
        """Creates a topic with three replicas."""
        create_topic(name, partitions=partitions, client=self.admin)

    def add_partitions(self, name, count):
        """Makes a topic have `count` partitions."""
        add_partitions(name, count, client=self.admin)

    def delete_topic(self, name):
        delete_topic(name, client=self.admin)

    def set_session_timeout(self, group, milliseconds):
        """How long a member of a KIP-848 group may be silent."""
        configure_group(group, "consumer.session.timeout.ms", str(milliseconds), client=self.admin)


class Flow:
    """Produces `first` and the numbers that follow round the places, from a thread, until it is stopped.

    `places` may be changed while it runs. `role` says what the records are produced as: "required", "optional" or
    "unwanted" (`History.produced`).
    """

    # These go to a partition that this client does not know yet: nothing was produced.
    _NOT_PRODUCED = (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC)

    def __init__(self, bootstrap, histories, places, role="required", first=0):
        self.places, self.role = list(places), role
        # The number of the next one.
        self.sent = first
        self.errors = []
        self._histories = histories
        self._outstanding = set()
        self._stopping = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                "topic.metadata.refresh.interval.ms": 500,
                "log_level": QUIET,
            }
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stopping.wait(_PRODUCE_EVERY):
            # Once: it may be changed meanwhile.
            places, number = self.places, self.sent
            topic, partition = place = places[number % len(places)]
            self._outstanding.add(number)
            self.sent += 1
            reported = functools.partial(self._reported, number, place, self.role)
            try:
                self._producer.produce(topic, str(number), partition=partition, on_delivery=reported)
            except KafkaException as refused:
                reported(refused.args[0], None)
            self._producer.poll(0)

    def _reported(self, number, place, role, error, message):
        if error is None:
            for history in self._histories:
                history.produced(
                    str(number), place, message.offset(), optional=role == "optional", unwanted=role == "unwanted"
                )
        elif error.code() not in self._NOT_PRODUCED:
            self.errors.append(f"record {number} at {place} was refused: {error}")
        self._outstanding.discard(number)

    def reported(self, mark):
        """Whether it is known of all records below `mark` what became of them."""
        return min(list(self._outstanding), default=mark) >= mark

    def has_stopped(self):
        """Whether nothing is produced any more."""
        return self._stopping.is_set()

    def stop(self):
        """Returns when everything was reported."""
        self._stopping.set()
        self._thread.join()
        left = self._producer.flush(PATIENCE)
        if left:
            self.errors.append(f"{left} records were never reported")


class Observer:
    """Asks the coordinator again and again what the group has committed, without being a member."""

    def __init__(self, bootstrap, group, history, places):
        self.places = list(places)
        self._history = history
        self._stopping = threading.Event()
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": QUIET})
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stopping.wait(_OBSERVE_EVERY):
            floor = self._history.floor()
            if offsets := self.ask(self.places):
                self._history.observed(floor, offsets)

    def ask(self, places):
        """The committed offsets by place, -1 for none; nothing while the coordinator is dead."""
        try:
            found = self._consumer.committed([TopicPartition(*place) for place in places], timeout=5)
        except KafkaException:
            return None
        if any(part.error for part in found):
            return None
        return {(part.topic, part.partition): max(part.offset, -1) for part in found}

    def commit(self, offsets):
        """Sets the offsets of a group without members, by place; returns whether that was done."""
        asked = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        try:
            return not any(part.error for part in self._consumer.commit(offsets=asked, asynchronous=False))
        except KafkaException:
            return False

    def stop_watching(self):
        """From now on it is only asked."""
        self._stopping.set()
        self._thread.join()

    def close(self):
        self.stop_watching()
        self._consumer.close()


class Run:
    """One row of the table of scenarios: `go` carries it out and returns what was wrong.

    `killer` kills the coordinator's broker at a random moment of it; without one it is undisturbed.
    """

    def __init__(self, row, cluster, killer, seed):
        self.row, self.scenario, self.cluster = row, row.scenario, cluster
        self.chance = random.Random(f"{seed} {row}")
        self.step = "begins"
        # The steps in which the coordinator's broker was killed.
        self.kills = []
        self.members, self.topics = [], []
        self.history = History(
            may_start_over=killer is not None and any(kind.starts_over for kind in row.kinds),
            may_commit_backwards=killer is not None and any(kind.may_commit_backwards for kind in row.kinds),
        )
        self.group = killer.group_name(row) if killer else f"{name_of(row)}-{time.time_ns()}"
        self.flow = self.observer = None
        # Something was waited for in vain, and no promise broken.
        self.is_stalled = False
        self._killer = killer
        self._started = 0

    def __str__(self):
        return f"{self.row}: {self.step}"

    @property
    def is_disturbed(self):
        """Whether coordinators are killed while it lives."""
        return self._killer is not None

    @property
    def can_be_struck(self):
        """Whether there is a group that reads: before that a kill of its coordinator would mean nothing to it."""
        return self.history.has_begun()

    def go(self):
        """Carries the scenario out; returns what was wrong, in words."""
        try:
            self._begin()
            moment = self.chance.randrange(len(self.scenario.steps))
            for number, step in enumerate(self.scenario.steps):
                self.step = step.name
                if self._killer and number == moment:
                    self._killer.wait_until_ready(self)
                    self._killer.strike_soon(self, self.chance.uniform(0, 1.5))
                step.act(self)
                self.settle()
                self.catch_up()
                if self._killer and number >= moment and self.can_be_struck:
                    wait_until(lambda: self.kills, "nobody killed the coordinator")
                    self.settle()
                    self.catch_up()
            self.step = "end"
            self._end()
            return self._judge()
        except (AssertionError, KafkaException) as failure:
            what = [f"{type(failure).__name__}: {failure}", *map(str, self.members)]
            if self.flow:
                # What was delivered already may not be reported yet.
                self.flow.stop()
            self.is_stalled = isinstance(failure, NeverHappened) and not self._judge(is_over=False)
            # What did not happen explains what is missing.
            return [*what, *self._judge()]
        finally:
            self._close()

    def figures(self):
        """What happened, for a line of evidence."""
        found = self.history.summary()
        excused = f", {found['excused']} excused" if found["excused"] else ""
        return (
            f"{found['records']} records, {found['twice']} more than once,"
            f" {found['commits']} commits told of, {found['refused']} refused{excused}"
        )

    def _begin(self):
        for number in range(self.scenario.topics):
            topic = f"{self.group}-{number}"
            self.cluster.create_topic(topic, self.scenario.partitions)
            self.topics.append(topic)
        places = [(topic, partition) for topic in self.topics for partition in range(self.scenario.partitions)]
        self.flow = Flow(self.cluster.bootstrap, [self.history], places, self.scenario.first_role)
        self.observer = Observer(self.cluster.bootstrap, self.group, self.history, places)
        if any(kind.protocol == CONSUMER for kind in self.row.kinds):
            self.cluster.set_session_timeout(self.group, self._session_timeout_ms())

    def _end(self):
        """Everybody stops in order, and what they had read is committed."""
        self.flow.stop()
        wait_until(lambda: not self.history.undelivered(), self._what_is_missing)
        for member in list(self.members):
            self.stop(member)

    def _judge(self, is_over=True):
        # A client that commits by itself does not tell whether it could before its coordinator died.
        is_told = self.row.commit != "auto" or not self.kills
        problems = self.history.violations(self.scenario.exactly_once and is_told, is_over)
        return problems + (self.flow.errors if self.flow else [])

    def _close(self):
        self.step = "over"
        for member in self.members:
            member.kill()
        self.members = []
        if self.flow:
            self.flow.stop()
        if self.observer:
            self.observer.close()

    # What steps are made of.

    def join(self, count):
        """Members start; the kinds of the row take turns."""
        for _ in range(count):
            kind = self.row.kinds[self._started % len(self.row.kinds)]
            self._start(kind, f"instance-{self._started}" if self.scenario.is_static else None)

    def _start(self, kind, instance=None):
        self._started += 1
        member = Member(
            f"{kind.client} {self._started}",
            kind,
            {self.group: self.history},
            self.cluster.bootstrap,
            self.topics,
            self.row.commit,
            self.scenario.reset,
            self._session_timeout_ms(),
            instance,
        )
        self.members.append(member)
        return member

    def restart(self, member):
        """A static member ends, and another process takes its place."""
        self.stop(member)
        return self._start(member.kind, member.instance)

    def _session_timeout_ms(self):
        if self.scenario.is_session_short:
            return SHORTEST_SESSION_MS
        # Some clients do not say goodbye twice where the coordinator dies just then: their session must run out.
        return SESSION_MS if self.is_disturbed else _LONG_SESSION_MS

    def owners(self, many=1):
        """Members that own something, those longest there first."""

        def found():
            owners = [member for member in self.members if member.owned != frozenset()]
            return owners[:many] if len(owners) >= many else None

        return wait_until(found, f"there are no {many} owners")

    def stop(self, member):
        self.members.remove(member)
        if not member.stop():
            raise NeverHappened(f"{member} did not end when it was told to")

    def kill(self, member):
        self.members.remove(member)
        member.kill()

    def settle(self):
        """Waits until every place has one owner, and no member more than its share."""
        wait_until(self._is_settled, lambda: "not shared: " + "; ".join(str(member) for member in self.members))

    def _is_settled(self):
        live = [member for member in self.members if not member.is_paused]
        if ended := [member for member in live if member.has_ended()]:
            raise NeverHappened(f"ended by itself: {ended[0]}")
        if not live or any(member.owned is None for member in live):
            # The console consumer does not tell: what it reads and commits says it.
            return True
        shares = [{place[1:] for place in member.owned} for member in live]
        owned = [place for share in shares for place in share]
        wanted = set(self.observer.places)
        sizes = [len(share & wanted) for share in shares]
        is_even = max(sizes) - min(sizes) <= len(self.topics)
        return is_even and set(owned) >= wanted and len(owned) == len(set(owned))

    def catch_up(self):
        """Waits until everything produced so far was delivered and committed; while the flow goes on, another record for
        each place too: members that read nothing would be noticed."""
        if not self.members:
            return
        mark = self.flow.sent + (0 if self.flow.has_stopped() else len(self.flow.places))
        wait_until(
            lambda: self.flow.sent >= mark and self.flow.reported(mark) and self._is_delivered(mark),
            self._what_is_missing,
        )
        goals = {place: end for place, end in self.history.ends().items() if place in self.observer.places}

        def is_committed():
            seen = self.history.seen()
            return all(seen.get(place, -1) >= goal for place, goal in goals.items())

        wait_until(is_committed, lambda: f"committed: {self.history.seen()} of {goals}")

    def _is_delivered(self, mark):
        return all(int(value) >= mark for value in self.history.undelivered())

    def _what_is_missing(self):
        missing = sorted(self.history.undelivered(), key=int)
        return f"{len(missing)} records are not delivered: {missing[:20]}"

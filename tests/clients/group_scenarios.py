"""What groups live through, as a table: scenario by client, by its way of committing.

A scenario is a list of steps. Records flow from its beginning to its end; after each step the partitions must be
shared evenly among those who can read, and everything produced so far must have been delivered and committed.
"""

import dataclasses
from collections.abc import Callable

from cluster import wait_until
from group_run import Run
from members import (
    AIOKAFKA,
    CLASSIC,
    CONFLUENT,
    CONSUMER,
    JAVA,
    JAVA_CONSOLE,
    KAFKA_PYTHON,
    KNOW_BOTH_PROTOCOLS,
    Kind,
    kinds,
)


@dataclasses.dataclass(frozen=True)
class Step:
    """Something that happens to a group."""

    name: str
    act: Callable[[Run], None]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A life of a group."""

    name: str
    steps: list
    # Every member commits and stops cleanly.
    exactly_once: bool = True
    topics: int = 1
    partitions: int = 4
    reset: str = "earliest"
    # Somebody's session ends.
    is_session_short: bool = False
    # Members keep their place while they restart (`group.instance.id`).
    is_static: bool = False
    # As what the first records are produced (`History.produced`).
    first_role: str = "required"


@dataclasses.dataclass(frozen=True)
class Row:
    """A scenario with a client; with several, they are members of one group."""

    scenario: Scenario
    kinds: tuple
    commit: str

    @property
    def bears_kills(self):
        """Whether its clients can keep the promises where coordinators die: one that starts over then skips records
        where it starts at the end, and stops where it may not start; one that never stops commits nothing more."""
        if self.commit == "auto" and any(kind.may_never_stop for kind in self.kinds):
            return False
        return self.scenario.reset == "earliest" or not any(kind.starts_over for kind in self.kinds)

    def __str__(self):
        return f"{self.scenario.name}, {' + '.join(map(str, self.kinds))}, {self.commit}"


# Steps.


def join(count):
    return Step(f"{count} join", lambda run: run.join(count))


def leave(count=1):
    def act(run):
        for member in run.owners(count):
            run.stop(member)

    return Step(f"{count} leave", act)


def kill():
    return Step("one is killed", lambda run: run.kill(run.owners()[0]))


def pause():
    # The others own everything once its session is over.
    return Step("one stands still beyond its session", lambda run: run.owners()[0].pause())


def resume():
    def act(run):
        next(member for member in run.members if member.is_paused).resume()

    return Step("it goes on", act)


def restart():
    def act(run):
        [member] = run.owners()
        owned = member.owned
        successor = run.restart(member)
        run.settle()
        # Where the coordinator dies meanwhile, its session may be over before it is back.
        assert run.is_disturbed or successor.owned == owned, f"{successor.name} has not what {member.name} had: {successor}"

    return Step("one restarts", act)


def produce_what_is_too_old():
    def act(run):
        # Something for each partition, before anybody reads; what follows may be seen or not.
        wait_until(lambda: run.flow.sent >= 10 * len(run.flow.places), "nothing is produced")
        run.flow.role = "optional"
        mark = run.flow.sent
        wait_until(lambda: run.flow.reported(mark), "it is not known what became of the first records")

    return Step("records of before", act)


def require_from_now_on():
    def act(run):
        run.flow.role = "required"

    return Step("every position is committed", act)


def join_in_vain():
    def act(run):
        run.join(1)
        [member] = run.members
        wait_until(member.reset_is_refused, lambda: f"no error: {member}")
        run.kill(member)

    return Step("one finds no committed offset", act)


def commit_the_beginning():
    def act(run):
        beginning = dict.fromkeys(run.observer.places, 0)
        # The one that was killed is a member until its session is over.
        wait_until(lambda: run.observer.commit(beginning), "the group's offsets cannot be set")

    return Step("its offsets are set from outside", act)


def grow():
    def act(run):
        [topic] = run.topics
        count = 2 * run.scenario.partitions
        run.cluster.add_partitions(topic, count)
        places = [(topic, partition) for partition in range(count)]
        run.observer.places = run.flow.places = places
        # Each of the new ones has something to read.
        wait_until(lambda: len(run.history.ends()) == count, "nothing is produced to the new partitions")

    return Step("partitions are added", act)


def lose_a_topic():
    def act(run):
        kept, doomed = run.topics
        run.flow.places = [place for place in run.flow.places if place[0] == kept]
        run.catch_up()
        run.observer.places = list(run.flow.places)
        run.history.forget(doomed)
        run.cluster.delete_topic(doomed)
        if not run.is_disturbed:
            # As with Kafka, a coordinator that takes over just then may not hear of it: they expire.
            gone = {(doomed, partition): -1 for partition in range(run.scenario.partitions)}
            wait_until(lambda: run.observer.ask(gone) == gone, "the offsets of the deleted topic are kept")

    return Step("a topic is deleted", act)


# The table.

COME_AND_GO = Scenario("come and go", [join(1), join(1), leave(), join(2), leave()])
COMMITS = Scenario("commits", [join(2), leave(), join(1)])
LATEST = Scenario(
    "latest",
    [produce_what_is_too_old(), join(2), require_from_now_on(), leave()],
    reset="latest",
    first_role="unwanted",
)
NONE = Scenario(
    "none",
    [join_in_vain(), commit_the_beginning(), join(2), leave()],
    reset="none",
    is_session_short=True,
    exactly_once=False,
)
KILLED = Scenario("killed", [join(3), kill(), join(1), kill()], is_session_short=True, exactly_once=False)
PAUSED = Scenario("paused", [join(2), pause(), resume(), leave()], is_session_short=True, exactly_once=False)
STATIC = Scenario("static members", [join(2), restart(), restart()], is_static=True)
GROWING = Scenario("growing topic", [join(2), grow(), leave()])
DELETED = Scenario("deleted topic", [join(2), lose_a_topic(), leave()], topics=2)
STANDBY = Scenario("twelve on six", [join(12), leave(6)], partitions=6)
TOGETHER = Scenario("all clients in one group", [join(4), leave(), leave()])
# Of two kinds, one of each protocol: the first member of the new one changes the group's, its last one changes it back.
MIGRATION = Scenario("from one protocol to the other and back", [join(2), leave(), join(1), leave()])

CLIENTS = (CONFLUENT, KAFKA_PYTHON, AIOKAFKA, JAVA, JAVA_CONSOLE)
_READ_SEVERAL_TOPICS = (CONFLUENT, KAFKA_PYTHON, AIOKAFKA, JAVA_CONSOLE)
_TELL_OF_THEIR_SHARE = (CONFLUENT, KAFKA_PYTHON, AIOKAFKA, JAVA)


def _row(scenario, kind, commit=None):
    return Row(scenario, (kind,), commit or kind.commits[0])


def every_row():
    """Everything: the full form."""
    rows = [_row(COME_AND_GO, kind) for client in CLIENTS for kind in kinds(client, every_assignor=True)]
    rows += [_row(COMMITS, kind, commit) for client in CLIENTS for kind in kinds(client) for commit in kind.commits]
    for scenario, who in [
        (LATEST, CLIENTS),
        (NONE, CLIENTS),
        (KILLED, CLIENTS),
        (PAUSED, CLIENTS),
        (STATIC, _TELL_OF_THEIR_SHARE),
        (GROWING, CLIENTS),
        (DELETED, _READ_SEVERAL_TOPICS),
        (STANDBY, _TELL_OF_THEIR_SHARE),
    ]:
        rows += [_row(scenario, kind) for client in who for kind in kinds(client)]
    return [*rows, mixed(), *migrations()]


def mixed():
    """All clients in one group: they understand each other's subscriptions and assignments."""
    found = [kind for client in _TELL_OF_THEIR_SHARE for kind in kinds(client, every_assignor=True)]
    return Row(TOGETHER, tuple(kind for kind in found if kind == Kind(kind.client, "range")), "sync")


def migrations():
    """Groups that change their protocol while they run: each client that knows both, and one that does not beside one
    that does."""
    pairs = [tuple(kinds(client)) for client in KNOW_BOTH_PROTOCOLS if client in _TELL_OF_THEIR_SHARE]
    # Not with aiokafka 0.14.0, which fails of REBALANCE_IN_PROGRESS as the answer to JoinGroup: what a group says that
    # changes its protocol just then, as Kafka's do.
    pairs.append((kinds(KAFKA_PYTHON)[0], Kind(CONFLUENT, "uniform", CONSUMER)))
    return [Row(MIGRATION, pair, "sync") for pair in pairs]


def quick_rows():
    """Undisturbed: every assignor of the Python clients, each Java member, and all clients together."""
    python = (CONFLUENT, KAFKA_PYTHON, AIOKAFKA)
    rows = [_row(COME_AND_GO, kind) for client in python for kind in kinds(client, every_assignor=True)]
    return [*rows, *(_row(COME_AND_GO, kinds(client)[0]) for client in (JAVA, JAVA_CONSOLE)), mixed()]


def quick_rows_with_kills():
    """With the coordinator's broker killed: every scenario once, some with more clients, and each client that knows both
    protocols in both."""
    picked = [
        (COME_AND_GO, CONFLUENT, CLASSIC, "sync"),
        (COME_AND_GO, KAFKA_PYTHON, CLASSIC, "sync"),
        (COME_AND_GO, AIOKAFKA, CLASSIC, "sync"),
        (COME_AND_GO, JAVA, CONSUMER, "sync"),
        (COMMITS, AIOKAFKA, CLASSIC, "async"),
        (COMMITS, KAFKA_PYTHON, CLASSIC, "auto"),
        (COMMITS, JAVA_CONSOLE, CLASSIC, "auto"),
        (COMMITS, JAVA_CONSOLE, CONSUMER, "auto"),
        (LATEST, KAFKA_PYTHON, CLASSIC, "sync"),
        (NONE, CONFLUENT, CLASSIC, "sync"),
        (KILLED, JAVA, CLASSIC, "sync"),
        (KILLED, CONFLUENT, CONSUMER, "sync"),
        (PAUSED, KAFKA_PYTHON, CLASSIC, "sync"),
        (STATIC, CONFLUENT, CLASSIC, "sync"),
        (GROWING, CONFLUENT, CONSUMER, "sync"),
        (DELETED, KAFKA_PYTHON, CLASSIC, "sync"),
        (STANDBY, CONFLUENT, CLASSIC, "sync"),
    ]
    rows = [
        Row(scenario, tuple(kind for kind in kinds(client) if kind.protocol == protocol), commit)
        for scenario, client, protocol, commit in picked
    ]
    return [*rows, migrations()[0]]

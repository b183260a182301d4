"""The clients that can be members of a group, unmodified, each member a process of its own."""

import collections
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import java_tools
from running import Running

# A folder for everything that members tell.
_LOGS = os.environ.get("CLIENTS_LOGS")
# The group protocols that members speak; the second is KIP-848.
CLASSIC, CONSUMER = "classic", "consumer"

CONFLUENT, KAFKA_PYTHON, AIOKAFKA = "confluent", "kafka-python", "aiokafka"
# kafka-verifiable-consumer, and kafka-console-consumer --group, which commits by itself alone.
JAVA, JAVA_CONSOLE = "java", "java console"

# Every assignor that a client has, the first one where any will do.
_ASSIGNORS = {
    CONFLUENT: ("range", "roundrobin", "cooperative-sticky"),
    KAFKA_PYTHON: ("range", "roundrobin", "sticky", "cooperative-sticky"),
    AIOKAFKA: ("roundrobin", "range", "sticky"),
    JAVA: ("range", "roundrobin", "sticky", "cooperative-sticky"),
    JAVA_CONSOLE: ("range", "cooperative-sticky"),
}
_SERVER_ASSIGNORS = ("uniform", "range")
KNOW_BOTH_PROTOCOLS = (CONFLUENT, JAVA, JAVA_CONSOLE)
_JAVA_CLASSES = {
    "range": "org.apache.kafka.clients.consumer.RangeAssignor",
    "roundrobin": "org.apache.kafka.clients.consumer.RoundRobinAssignor",
    "sticky": "org.apache.kafka.clients.consumer.StickyAssignor",
    "cooperative-sticky": "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
}
_COMMITS = {
    CONFLUENT: ("sync", "async", "auto"),
    KAFKA_PYTHON: ("sync", "async", "auto"),
    AIOKAFKA: ("sync", "async", "auto"),
    JAVA: ("sync", "auto"),
    JAVA_CONSOLE: ("auto",),
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A client with an assignor of its own, or with one of the server's."""

    client: str
    assignor: str
    protocol: str = CLASSIC

    def __str__(self):
        return f"{self.client} {self.assignor}" + (" (KIP-848)" if self.protocol == CONSUMER else "")

    @property
    def starts_over(self):
        """Whether it takes a coordinator that has moved for one that knows no offsets.

        aiokafka 0.14.0 asks in version 3 of OffsetFetch, where such an error stands beside the topics, of which there are
        none then; it looks at the topics alone, and begins where `auto_offset_reset` says.
        """
        return self.client == AIOKAFKA

    @property
    def may_never_stop(self):
        """Whether `stop` may go on for ever where it commits automatically.

        aiokafka 0.14.0 commits once more then, again and again while it does not know the coordinator, for which it
        does not look any more by that time.
        """
        return self.client == AIOKAFKA

    @property
    def may_commit_backwards(self):
        """Whether an asynchronous commit may take effect after a later one that was waited for.

        librdkafka (2.16) sends one again whose coordinator died. Its answer comes with a poll only: whoever must give his
        partitions away, and commits what he has read once more, cannot know that the former is still under way.
        """
        return self.client == CONFLUENT

    @property
    def commits(self):
        """The ways of committing that the client has."""
        return _COMMITS[self.client]


def kinds(client, every_assignor=False):
    """The client in each protocol that it knows, the classic one first, with each assignor or with one."""
    assignors = {CLASSIC: _ASSIGNORS[client]}
    if client in KNOW_BOTH_PROTOCOLS:
        assignors[CONSUMER] = _SERVER_ASSIGNORS
    return [
        Kind(client, assignor, protocol)
        for protocol, names in assignors.items()
        for assignor in (names if every_assignor else names[:1])
    ]


class Member:
    """A member and what it tells, which goes into the histories of its groups.

    `owned` are its places; None for a client that does not tell. `is_paused` while it stands still. `instance` is the
    name of a static member (`group.instance.id`).
    """

    def __init__(self, name, kind, histories, bootstrap, topics, commit, reset, session_timeout_ms, instance=None):
        self.name, self.kind, self.instance = name, kind, instance
        self.owned = None if kind.client == JAVA_CONSOLE else frozenset()
        self.is_paused = False
        self.errors = []
        # What it told last but for records, for the report of a failure.
        self._told = collections.deque(maxlen=20)
        self._log = Path(_LOGS) / f"{next(iter(histories))}, {name}.log" if _LOGS else None
        self._histories = histories
        self._reset_refused = False
        settings = {
            "bootstrap": bootstrap,
            "topics": topics,
            "groups": list(histories),
            "commit": commit,
            "reset": reset,
            "assignor": kind.assignor,
            "protocol": kind.protocol,
            "session_timeout_ms": session_timeout_ms,
            "instance": instance,
        }
        start = {JAVA: self._start_verifiable, JAVA_CONSOLE: self._start_console}.get(kind.client, self._start_python)
        self._program = start(settings)

    def _start_python(self, settings):
        program = str(Path(__file__).with_name("group_member.py"))
        return Running([sys.executable, program, self.kind.client, json.dumps(settings)], each=self._take)

    def _start_verifiable(self, settings):
        [group], [topic] = settings["groups"], settings["topics"]
        arguments = [
            "--bootstrap-server", settings["bootstrap"], "--topic", topic, "--group-id", group, "--verbose",
            "--reset-policy", settings["reset"], "--group-protocol", settings["protocol"],
        ]  # fmt: skip
        if self.instance:
            arguments += ["--group-instance-id", self.instance]
        if self.kind.protocol == CONSUMER:
            arguments += ["--group-remote-assignor", self.kind.assignor]
        else:
            arguments += ["--assignment-strategy", _JAVA_CLASSES[self.kind.assignor]]
            arguments += ["--session-timeout", str(settings["session_timeout_ms"])]
        if settings["commit"] == "auto":
            arguments += ["--enable-autocommit"]
        config = self._java_config(settings)
        return java_tools.Running("kafka-verifiable-consumer", *arguments, config=config, each=self._take)

    def _start_console(self, settings):
        [group] = settings["groups"]
        arguments = ["--bootstrap-server", settings["bootstrap"], "--group", group]
        arguments += ["--include", "|".join(settings["topics"])]
        config = self._java_config(settings) | {"auto.offset.reset": settings["reset"]}
        config["group.protocol"] = self.kind.protocol
        if self.instance:
            config["group.instance.id"] = self.instance
        if self.kind.protocol == CONSUMER:
            config["group.remote.assignor"] = self.kind.assignor
        else:
            config["partition.assignment.strategy"] = _JAVA_CLASSES[self.kind.assignor]
            config["session.timeout.ms"] = settings["session_timeout_ms"]
            # So long it tries to commit offsets of a topic that was deleted before it joins again: five minutes by default.
            config["max.poll.interval.ms"] = 60_000
        [history] = self._histories.values()

        def take(line):
            history.delivered(self.name, line)

        return java_tools.Running("kafka-console-consumer", *arguments, config=config, each=take)

    def _java_config(self, settings):
        config = {"metadata.max.age.ms": 500, "auto.commit.interval.ms": 200, "allow.auto.create.topics": "false"}
        return config if self.kind.protocol == CONSUMER else config | {"heartbeat.interval.ms": 500}

    def _take(self, line):
        if self._log:
            with self._log.open("a") as log:
                log.write(f"{time.strftime('%T')} {line}\n")
        try:
            event = json.loads(line)
        except ValueError:
            self.errors.append(line)
            return
        # kafka-verifiable-consumer has one group and does not name it.
        group = event.get("group") or next(iter(self._histories))
        history = self._histories[group]
        name = event["name"]
        if name != "record_data":
            self._told.append(f"{time.strftime('%T')} {line}")
        if name == "record_data":
            place = (event["topic"], event["partition"])
            history.delivered(self.name, event["value"], place, event["offset"])
        elif name == "offsets_committed":
            offsets = {(part["topic"], part["partition"]): part["offset"] for part in event["offsets"]}
            history.committed(self.name, offsets, event["success"])
            if not event["success"]:
                self.errors.append(line)
        elif name == "commit_overtaken":
            for part in event["offsets"]:
                place = (part["topic"], part["partition"])
                history.overtaken(place, part["offset"], part["overtaken_by"])
        elif name in ("partitions_assigned", "partitions_revoked"):
            places = frozenset((group, part["topic"], part["partition"]) for part in event["partitions"])
            if name == "partitions_assigned":
                self.owned = self.owned | places
            else:
                self.owned = self.owned - places
            history.assigned(self.name, [place[1:] for place in places])
        elif name == "reset_refused":
            self._reset_refused = True
        elif name == "error":
            self.errors.append(line)

    def reset_is_refused(self):
        """Whether it has said that there is no committed offset to begin at."""
        # kafka-verifiable-consumer ends of it.
        return self._reset_refused or any("NoOffsetForPartitionException" in line for line in self._program.log)

    def has_ended(self):
        return self._program.has_ended()

    def pause(self):
        self.is_paused = True
        self._program.pause()

    def resume(self):
        self.is_paused = False
        self._program.resume()

    def stop(self):
        """SIGTERM: it commits and leaves. Returns whether it ended by itself."""
        return self._program.end()

    def kill(self):
        """kill -9: nobody says goodbye."""
        self._program.kill()

    def __str__(self):
        """For the report of a failure."""
        complaints = [*self._told, *self._program.log[-5:]]
        state = "paused" if self.is_paused else "ended" if self.has_ended() else "runs"
        owned = "?" if self.owned is None else sorted(place[1:] for place in self.owned)
        return f"{self.name} {state}, owns {owned}" + "".join(f"\n      {line}" for line in complaints)

#!/usr/bin/env python3
"""A member of a group with one of the Python clients: a process of its own, which can be killed and stopped.

    group_member.py CLIENT SETTINGS

Tells on standard output what happens to it, one JSON object a line, in the words of kafka-verifiable-consumer:
partitions_assigned, partitions_revoked, record_data, offsets_committed, shutdown_complete; and reset_refused where
there is neither a committed offset nor a policy for that. A record is told before it is committed. SIGTERM ends it in
order: what was read is committed, and the group left. SETTINGS is JSON, with the names of `Settings`.
"""

import asyncio
import dataclasses
import json
import os
import resource
import signal
import sys
import threading
import time

# Seconds that a commit is tried again before partitions are given away.
_COMMIT_PATIENCE = 30.0
_POLL = 0.1
# Records that are read before they are committed.
_BATCH = 100
_REFRESH_MS = 500
# What a process with many consumers does instead: there would be no end of asking.
_CROWD_POLL = 2.0
_CROWD_REFRESH_MS = 60_000


@dataclasses.dataclass
class Settings:
    """How a member reads."""

    bootstrap: str
    topics: list
    # Each of them is one more group that this process is a member of; only aiokafka has more than one.
    groups: list
    # sync: after each batch; async: likewise, without waiting; auto: the client's own way.
    commit: str = "sync"
    # earliest, latest or none.
    reset: str = "earliest"
    # The name that the assignor has on the wire; the server's where the protocol is `consumer`.
    assignor: str = "range"
    protocol: str = "classic"
    session_timeout_ms: int = 30_000


def tell(name, **fields):
    """Standard output is read line by line, and complete even if the process is killed then."""
    sys.stdout.write(json.dumps({"name": name, **fields}) + "\n")
    sys.stdout.flush()


class Account:
    """What one member has read and does not know to be committed. A place is (topic, partition)."""

    def __init__(self, group, commit):
        self._group = group
        # What the client commits by itself it does not tell of.
        self._tells = commit != "auto"
        self.pending = {}
        self._asked = {}

    def assigned(self, places):
        places = list(places)
        self._give_up(places)
        self._tell_places("partitions_assigned", places)

    def revoked(self, places):
        places = list(places)
        self._give_up(places)
        self._tell_places("partitions_revoked", places)

    def read(self, topic, partition, offset, value):
        self.pending[topic, partition] = offset + 1
        tell("record_data", group=self._group, topic=topic, partition=partition, offset=offset, value=value.decode())

    def to_ask(self):
        """What is to be committed without waiting: one request at a time, for one that the client sends again could
        overtake a later one."""
        if not self._asked:
            self._asked = dict(self.pending)
            return dict(self.pending)
        return {}

    def committed(self, offsets):
        """`offsets` by place are acknowledged."""
        for known in (self.pending, self._asked):
            self._answered(known, offsets)
        self._tell_commit(offsets, success=True)

    def refused(self, offsets, error):
        self._answered(self._asked, offsets)
        self._tell_commit(offsets, success=False, error=str(error))

    @staticmethod
    def _answered(known, offsets):
        for place, offset in offsets.items():
            if known.get(place) == offset:
                del known[place]

    def forget(self, places):
        """These cannot be committed: their topic is gone."""
        for place in places:
            self.pending.pop(place, None)
            self._asked.pop(place, None)

    def _give_up(self, places):
        left = {place: self.pending[place] for place in places if place in self.pending}
        if left and self._tells:
            self._tell_commit(left, success=False, error="given up unanswered")
        self.forget(places)

    def _tell_places(self, name, places):
        tell(name, group=self._group, partitions=[{"topic": topic, "partition": at} for topic, at in places])

    def _tell_commit(self, offsets, **outcome):
        told = [{"topic": topic, "partition": at, "offset": offset} for (topic, at), offset in offsets.items()]
        tell("offsets_committed", group=self._group, offsets=told, **outcome)


class Confluent:
    """confluent-kafka, that is librdkafka."""

    def __init__(self, settings):
        from confluent_kafka import Consumer, KafkaError

        self._settings, self._errors = settings, KafkaError
        self._account = Account(settings.groups[0], settings.commit)
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        config = {
            "bootstrap.servers": settings.bootstrap,
            "group.id": settings.groups[0],
            "group.protocol": settings.protocol,
            "auto.offset.reset": "error" if settings.reset == "none" else settings.reset,
            "enable.auto.commit": settings.commit == "auto",
            "auto.commit.interval.ms": 200,
            "topic.metadata.refresh.interval.ms": _REFRESH_MS,
            "allow.auto.create.topics": False,
            "on_commit": self._on_commit,
            # It tells of every broken connection.
            "log_level": 0,
        }
        if settings.protocol == "consumer":
            config |= {"group.remote.assignor": settings.assignor}
        else:
            config |= {
                "partition.assignment.strategy": settings.assignor,
                "session.timeout.ms": settings.session_timeout_ms,
                "heartbeat.interval.ms": 500,
            }
        self._consumer = Consumer(config)

    def _stop(self, *_):
        self._stopping = True

    def run(self):
        self._consumer.subscribe(
            self._settings.topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        while not self._stopping:
            self._read()
            self._commit(waiting=self._settings.commit == "sync")
        self._commit_before_leaving()
        self._consumer.close()

    def _read(self):
        patience = _POLL
        for _ in range(_BATCH):
            message = self._consumer.poll(patience)
            if message is None:
                return
            # What is there already; a rebalance may be served in between.
            patience = 0
            if message.error() is None:
                self._account.read(message.topic(), message.partition(), message.offset(), message.value())
            elif message.error().code() == self._errors._AUTO_OFFSET_RESET:
                tell("reset_refused")
            else:
                tell("error", error=str(message.error()))

    def _commit(self, waiting):
        """Commits what was read. Returns whether it would help to try again at once."""
        from confluent_kafka import KafkaException, TopicPartition

        if self._settings.commit == "auto":
            return False
        offsets = dict(self._account.pending) if waiting else self._account.to_ask()
        if not offsets:
            return False
        asked = [TopicPartition(topic, at, offset) for (topic, at), offset in offsets.items()]
        if not waiting:
            # Its answer comes to _on_commit.
            self._consumer.commit(offsets=asked, asynchronous=True)
            return False
        try:
            self._answered(self._consumer.commit(offsets=asked, asynchronous=False))
            return False
        except KafkaException as failure:
            self._account.refused(offsets, failure)
            lost = (self._errors.ILLEGAL_GENERATION, self._errors.UNKNOWN_MEMBER_ID, self._errors.STALE_MEMBER_EPOCH)
            return failure.args[0].code() not in lost

    def _on_commit(self, error, partitions):
        if error is not None and error.code() == self._errors._NO_OFFSET:
            return
        if error is not None:
            offsets = {(part.topic, part.partition): part.offset for part in partitions if part.offset >= 0}
            self._account.refused(offsets, error)
        elif self._settings.commit != "sync":
            self._answered(partitions)

    def _answered(self, partitions):
        done, refused = {}, {}
        for part in partitions:
            if part.offset >= 0:
                (refused if part.error else done)[part.topic, part.partition] = part.offset
        if done:
            self._account.committed(done)
        if refused:
            self._account.refused(refused, "of single partitions")
            self._account.forget(refused)

    def _commit_before_leaving(self):
        deadline = time.monotonic() + _COMMIT_PATIENCE
        while self._commit(waiting=True) and time.monotonic() < deadline:
            time.sleep(0.1)

    def _on_assign(self, _, partitions):
        self._account.assigned((part.topic, part.partition) for part in partitions)

    def _on_revoke(self, _, partitions):
        self._commit_before_leaving()
        self._account.revoked((part.topic, part.partition) for part in partitions)

    def _on_lost(self, _, partitions):
        self._account.revoked((part.topic, part.partition) for part in partitions)


class KafkaPython:
    """kafka-python. Its listener runs where no commit can be waited for: every batch is committed before the next poll.

    It forgets an assignment that comes just when the time of a poll is up (3.0.12: the task that joins is done and
    nobody has taken its result), and reads nothing any more: a poll here lasts longer than a rebalance. It returns as
    soon as there is something to read.
    """

    _POLL_MS = 10_000

    def __init__(self, settings):
        import kafka

        self._kafka, self._settings = kafka, settings
        self._account = Account(settings.groups[0], settings.commit)
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        self._consumer = kafka.KafkaConsumer(
            bootstrap_servers=settings.bootstrap.split(","),
            group_id=settings.groups[0],
            auto_offset_reset=settings.reset,
            enable_auto_commit=settings.commit == "auto",
            auto_commit_interval_ms=200,
            metadata_max_age_ms=_REFRESH_MS,
            max_poll_records=_BATCH,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=500,
            reconnect_backoff_max_ms=1000,
            partition_assignment_strategy=[self._assignor()],
            default_offset_commit_callback=self._on_commit,
        )

    def _assignor(self):
        from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
        from kafka.coordinator.assignors.range import RangePartitionAssignor
        from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
        from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

        known = [
            RangePartitionAssignor,
            RoundRobinPartitionAssignor,
            StickyPartitionAssignor,
            CooperativeStickyAssignor,
        ]
        return {assignor.name: assignor for assignor in known}[self._settings.assignor]

    def _stop(self, *_):
        self._stopping = True

    def run(self):
        self._consumer.subscribe(self._settings.topics, listener=self._listener())
        while not self._stopping:
            self._read()
            self._commit(waiting=self._settings.commit == "sync")
        deadline = time.monotonic() + _COMMIT_PATIENCE
        while self._commit(waiting=True) and time.monotonic() < deadline:
            time.sleep(0.1)
        self._consumer.close()

    def _listener(self):
        account = self._account

        class Listener(self._kafka.ConsumerRebalanceListener):
            def on_partitions_assigned(self, assigned):
                account.assigned(tuple(part) for part in assigned)

            def on_partitions_revoked(self, revoked):
                account.revoked(tuple(part) for part in revoked)

        return Listener()

    def _read(self):
        try:
            for records in self._consumer.poll(timeout_ms=self._POLL_MS).values():
                for record in records:
                    self._account.read(record.topic, record.partition, record.offset, record.value)
        except self._kafka.errors.NoOffsetForPartitionError:
            tell("reset_refused")
        except self._kafka.errors.KafkaError as failure:
            tell("error", error=repr(failure))

    def _commit(self, waiting):
        """Commits what was read. Returns whether it would help to try again at once."""
        if self._settings.commit == "auto":
            return False
        offsets = dict(self._account.pending) if waiting else self._account.to_ask()
        if not offsets:
            return False
        asked = {
            self._kafka.TopicPartition(*place): self._kafka.OffsetAndMetadata(offset, "", -1)
            for place, offset in offsets.items()
        }
        if not waiting:
            self._consumer.commit_async(asked, callback=self._on_commit)
            return False
        try:
            self._consumer.commit(asked)
            self._account.committed(offsets)
            return False
        except self._kafka.errors.CommitFailedError as failure:
            self._account.refused(offsets, failure)
            return False
        except self._kafka.errors.KafkaError as failure:
            self._account.refused(offsets, repr(failure))
            return True

    def _on_commit(self, offsets, outcome):
        done = {tuple(part): position.offset for part, position in offsets.items()}
        if isinstance(outcome, Exception):
            self._account.refused(done, repr(outcome))
        elif done:
            self._account.committed(done)


class Aiokafka:
    """aiokafka; as many consumers as there are groups, in one event loop."""

    def __init__(self, settings):
        self._settings = settings

    def run(self):
        # Each consumer has some connections.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        asyncio.run(self._run())

    async def _run(self):
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        await asyncio.gather(*(self._consume(group, stopping) for group in self._settings.groups))

    async def _consume(self, group, stopping):
        import aiokafka
        from aiokafka.errors import KafkaError, NoOffsetForPartitionError

        settings = self._settings
        account = Account(group, settings.commit)
        is_alone = len(settings.groups) == 1
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap,
            group_id=group,
            auto_offset_reset=settings.reset,
            enable_auto_commit=settings.commit == "auto",
            auto_commit_interval_ms=200,
            metadata_max_age_ms=_REFRESH_MS if is_alone else _CROWD_REFRESH_MS,
            fetch_max_wait_ms=500 if is_alone else 5000,
            session_timeout_ms=settings.session_timeout_ms,
            # Its default is the session's, which a slow machine would miss.
            rebalance_timeout_ms=120_000,
            heartbeat_interval_ms=500 if is_alone else 3000,
            partition_assignment_strategy=[self._assignor()],
        )
        patience = int(1000 * (_POLL if is_alone else _CROWD_POLL))
        # Held until what was read is committed, so that nothing is revoked in between.
        reading = asyncio.Lock()
        consumer.subscribe(settings.topics, listener=self._listener(consumer, account, reading))
        await self._start(consumer, stopping)
        answer = None
        while not stopping.is_set():
            try:
                found = await consumer.getmany(timeout_ms=patience, max_records=_BATCH)
            except NoOffsetForPartitionError:
                tell("reset_refused")
                continue
            except KafkaError as failure:
                tell("error", error=repr(failure))
                continue
            # It returns nothing while a rebalance is under way, so that the listener does not hold this now.
            async with reading:
                for records in found.values():
                    for record in records:
                        account.read(record.topic, record.partition, record.offset, record.value)
                if settings.commit == "async":
                    if offsets := account.to_ask():
                        answer = asyncio.create_task(self._commit(consumer, account, offsets))
                elif settings.commit == "sync":
                    await self._commit(consumer, account, dict(account.pending))
        if answer:
            await answer
        await self._commit(consumer, account, dict(account.pending))
        await consumer.stop()

    async def _start(self, consumer, stopping):
        """Starts it. One that is told to stop before it got its first share is stopped."""
        started = asyncio.create_task(consumer.start())
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait([started, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not started.done():
            started.cancel()
        else:
            started.result()

    def _assignor(self):
        from aiokafka.coordinator.assignors.range import RangePartitionAssignor
        from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
        from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

        known = [RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor]
        return {assignor.name: assignor for assignor in known}[self._settings.assignor]

    def _listener(self, consumer, account, reading):
        import aiokafka

        commit = self._commit

        class Listener(aiokafka.ConsumerRebalanceListener):
            async def on_partitions_revoked(self, revoked):
                async with reading:
                    await commit(consumer, account, dict(account.pending))
                    account.revoked(tuple(part) for part in revoked)

            def on_partitions_assigned(self, assigned):
                account.assigned(tuple(part) for part in assigned)

        return Listener()

    async def _commit(self, consumer, account, offsets):
        """Commits `offsets`, by place; the client itself tries again where that can help."""
        from aiokafka import TopicPartition
        from aiokafka.errors import IllegalStateError, KafkaError

        if self._settings.commit == "auto" or not offsets:
            return
        try:
            await consumer.commit({TopicPartition(*place): offset for place, offset in offsets.items()})
            account.committed(offsets)
        except (KafkaError, IllegalStateError) as failure:
            account.refused(offsets, repr(failure))


def end_with_the_parent():
    """Standard input ends when the test does, however that came."""

    def wait():
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main():
    end_with_the_parent()
    clients = {"confluent": Confluent, "kafka-python": KafkaPython, "aiokafka": Aiokafka}
    clients[sys.argv[1]](Settings(**json.loads(sys.argv[2]))).run()
    tell("shutdown_complete")


if __name__ == "__main__":
    main()

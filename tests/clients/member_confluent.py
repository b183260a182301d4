"""A member of a group with confluent-kafka, that is librdkafka."""

import signal
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from member_account import Account, tell
from member_settings import BATCH, COMMIT_PATIENCE, POLL, REFRESH_MS


class Client:
    """confluent-kafka, that is librdkafka."""

    def __init__(self, settings):
        self._settings = settings
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
            "topic.metadata.refresh.interval.ms": REFRESH_MS,
            "allow.auto.create.topics": False,
            "on_commit": self._on_commit,
            # It tells of every broken connection.
            "log_level": 0,
        }
        if settings.instance:
            config["group.instance.id"] = settings.instance
        if settings.protocol == "consumer":
            config["group.remote.assignor"] = settings.assignor
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
        patience = POLL
        for _ in range(BATCH):
            message = self._consumer.poll(patience)
            if message is None:
                return
            # What is there already; a rebalance may be served in between.
            patience = 0
            if message.error() is None:
                self._account.read(message.topic(), message.partition(), message.offset(), message.value())
            elif message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                tell("reset_refused")
            else:
                tell("error", error=str(message.error()))

    def _commit(self, waiting):
        """Commits what was read. Returns whether it would help to try again at once."""
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
            # Not STALE_MEMBER_EPOCH: the epoch that it is told next is the right one.
            lost = (KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_MEMBER_EPOCH)
            return failure.args[0].code() not in lost

    def _on_commit(self, error, partitions):
        if error is not None and error.code() == KafkaError._NO_OFFSET:
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
        deadline = time.monotonic() + COMMIT_PATIENCE
        while self._commit(waiting=True) and time.monotonic() < deadline:
            time.sleep(0.1)

    def _on_assign(self, _, partitions):
        self._account.assigned((part.topic, part.partition) for part in partitions)

    def _on_revoke(self, _, partitions):
        self._commit_before_leaving()
        self._account.revoked((part.topic, part.partition) for part in partitions)

    def _on_lost(self, _, partitions):
        self._account.revoked((part.topic, part.partition) for part in partitions)

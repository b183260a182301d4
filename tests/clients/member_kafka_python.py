"""A member of a group with kafka-python."""

import signal
import time

import kafka
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from member_account import Account, tell
from member_settings import BATCH, COMMIT_PATIENCE, REFRESH_MS

_ASSIGNORS = {
    assignor.name: assignor
    for assignor in (
        RangePartitionAssignor,
        RoundRobinPartitionAssignor,
        StickyPartitionAssignor,
        CooperativeStickyAssignor,
    )
}


class Client:
    """kafka-python. Its listener runs where no commit can be waited for: every batch is committed before the next poll.

    It forgets an assignment that comes just when the time of a poll is up (3.0.12: the task that joins is done and
    nobody has taken its result), and reads nothing any more: a poll here lasts longer than a rebalance, also one that
    waits for sessions to end. It returns as soon as there is something to read.
    """

    _POLL_MS = 30_000

    def __init__(self, settings):
        self._settings = settings
        self._account = Account(settings.groups[0], settings.commit)
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        self._consumer = kafka.KafkaConsumer(
            bootstrap_servers=settings.bootstrap.split(","),
            group_id=settings.groups[0],
            auto_offset_reset=settings.reset,
            enable_auto_commit=settings.commit == "auto",
            auto_commit_interval_ms=200,
            metadata_max_age_ms=REFRESH_MS,
            max_poll_records=BATCH,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=500,
            reconnect_backoff_max_ms=1000,
            partition_assignment_strategy=[_ASSIGNORS[settings.assignor]],
            group_instance_id=settings.instance,
            default_offset_commit_callback=self._on_commit,
        )

    def _stop(self, *_):
        self._stopping = True

    def run(self):
        self._consumer.subscribe(self._settings.topics, listener=self._listener())
        while not self._stopping:
            self._read()
            self._commit(waiting=self._settings.commit == "sync")
        deadline = time.monotonic() + COMMIT_PATIENCE
        while self._commit(waiting=True) and time.monotonic() < deadline:
            time.sleep(0.1)
        self._consumer.close()

    def _listener(self):
        account = self._account

        class Listener(kafka.ConsumerRebalanceListener):
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
        except kafka.errors.NoOffsetForPartitionError:
            tell("reset_refused")
        except kafka.errors.KafkaError as failure:
            tell("error", error=repr(failure))

    def _commit(self, waiting):
        """Commits what was read. Returns whether it would help to try again at once."""
        if self._settings.commit == "auto":
            return False
        offsets = dict(self._account.pending) if waiting else self._account.to_ask()
        if not offsets:
            return False
        asked = {
            kafka.TopicPartition(*place): kafka.OffsetAndMetadata(offset, "", -1)
            for place, offset in offsets.items()
        }
        if not waiting:
            self._consumer.commit_async(asked, callback=self._on_commit)
            return False
        try:
            self._consumer.commit(asked)
            self._account.committed(offsets)
            return False
        except kafka.errors.CommitFailedError as failure:
            self._account.refused(offsets, failure)
            return False
        except kafka.errors.KafkaError as failure:
            self._account.refused(offsets, repr(failure))
            return True

    def _on_commit(self, offsets, outcome):
        done = {tuple(part): position.offset for part, position in offsets.items()}
        if isinstance(outcome, Exception):
            self._account.refused(done, repr(outcome))
        elif done:
            self._account.committed(done)

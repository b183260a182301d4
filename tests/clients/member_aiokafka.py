"""A member of a group, or of many groups, with aiokafka."""

import asyncio
import resource
import signal

import aiokafka
from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError

from member_account import Account, tell
from member_settings import BATCH, POLL, REFRESH_MS

# What a process with many consumers does instead: there would be no end of asking.
_CROWD_POLL = 2.0
_CROWD_REFRESH_MS = 60_000
_ASSIGNORS = {
    assignor.name: assignor for assignor in (RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor)
}


class Client:
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
        settings = self._settings
        account = Account(group, settings.commit)
        is_alone = len(settings.groups) == 1
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap,
            group_id=group,
            auto_offset_reset=settings.reset,
            enable_auto_commit=settings.commit == "auto",
            auto_commit_interval_ms=200,
            metadata_max_age_ms=REFRESH_MS if is_alone else _CROWD_REFRESH_MS,
            fetch_max_wait_ms=500 if is_alone else 5000,
            session_timeout_ms=settings.session_timeout_ms,
            # Its default is the session's, which a slow machine would miss.
            rebalance_timeout_ms=120_000,
            heartbeat_interval_ms=500 if is_alone else 3000,
            partition_assignment_strategy=[_ASSIGNORS[settings.assignor]],
            group_instance_id=settings.instance,
        )
        patience = int(1000 * (POLL if is_alone else _CROWD_POLL))
        # Held until what was read is committed, so that nothing is revoked in between.
        reading = asyncio.Lock()
        consumer.subscribe(settings.topics, listener=self._listener(consumer, account, reading))
        await self._start(consumer, stopping)
        answer = None
        while not stopping.is_set():
            try:
                found = await consumer.getmany(timeout_ms=patience, max_records=BATCH)
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

    def _listener(self, consumer, account, reading):
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
        if self._settings.commit == "auto" or not offsets:
            return
        try:
            await consumer.commit({TopicPartition(*place): offset for place, offset in offsets.items()})
            account.committed(offsets)
        except (KafkaError, IllegalStateError) as failure:
            account.refused(offsets, repr(failure))

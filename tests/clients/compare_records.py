"""Cases for compare_with_kafka.py: records, produced and fetched."""

import struct
import time

from kafka.protocol.consumer import FetchRequest
from kafka.protocol.producer import ProduceRequest

from compare_topics import NOBODY
from wire import batch, seal

# Seconds to wait where Kafka is known not to answer.
_SILENCE = 20.0


def produce(topic, records, partition=0, acks=-1, version=12, transactional_id=None, topic_id=None):
    kind = ProduceRequest.TopicProduceData
    data = kind.PartitionProduceData(index=partition, records=None if records is None else bytes(records))
    named = kind(topic_id=topic_id, partition_data=[data]) if topic_id else kind(name=topic, partition_data=[data])
    return ProduceRequest(
        version=version, transactional_id=transactional_id, acks=acks, timeout_ms=60_000, topic_data=[named]
    )


def fetch(topic, offset, partition=0, version=12, topic_id=None, epoch=-1, size=1_000_000, session=(0, -1), last=-1):
    kind = FetchRequest.FetchTopic
    asked = kind.FetchPartition(
        partition=partition,
        current_leader_epoch=epoch,
        fetch_offset=offset,
        last_fetched_epoch=last,
        log_start_offset=-1,
        partition_max_bytes=size,
    )
    named = kind(topic_id=topic_id, partitions=[asked]) if topic_id else kind(topic=topic, partitions=[asked])
    return FetchRequest(
        version=version,
        replica_id=-1,
        max_wait_ms=100,
        min_bytes=0,
        max_bytes=10_000_000,
        isolation_level=0,
        session_id=session[0],
        session_epoch=session[1],
        topics=[named],
        forgotten_topics_data=[],
        rack_id="",
    )


def cases():
    """(name, function of a side): in order; later ones may see what earlier ones did."""
    def one(side, partition, *batches, **options):
        """Produces batches one by one; the last answer."""
        for records in batches:
            answer = side.ask(produce("produced", records, partition, **options))
        return answer

    def spoiled(position, values=(b"v",), **options):
        data = batch(list(values), **options)
        data[position] ^= 1
        return data

    def counted(count):
        data = batch([b"v"])
        struct.pack_into(">i", data, 57, count)
        return seal(data)

    yield "produce: acks 2", lambda s: one(s, 0, batch(), acks=2)
    yield "produce: acks -2", lambda s: one(s, 0, batch(), acks=-2)
    yield "produce: to an unknown topic", lambda s: s.ask(produce("nope", batch()))
    yield "produce: to a bad name", lambda s: s.ask(produce("a b", batch()))
    yield "produce: to an unknown partition", lambda s: one(s, 99, batch())
    yield "produce: to a negative partition", lambda s: one(s, -1, batch())
    yield "produce: to an unknown id", lambda s: s.ask(produce(None, batch(), version=13, topic_id=NOBODY))
    yield "produce: to a known id", lambda s: s.ask(produce(None, batch(), version=13, topic_id=s.topic_id("t")))
    yield "produce: null", lambda s: s.ask(produce("produced", None), patience=_SILENCE)
    yield "produce: no bytes", lambda s: one(s, 0, b"")
    yield "produce: ten bytes", lambda s: one(s, 0, batch()[:10])
    yield "produce: a cut batch", lambda s: one(s, 0, batch()[:-1])
    yield "produce: a byte too many", lambda s: one(s, 3, bytes(batch()) + b"\0")
    yield "produce: two batches", lambda s: one(s, 0, batch() + batch())
    yield "produce: a spoiled record", lambda s: one(s, 0, spoiled(-2))
    yield "produce: magic 1", lambda s: one(s, 0, batch(magic=1))
    yield "produce: magic 3", lambda s: one(s, 0, batch(magic=3))
    yield "produce: more records than there are", lambda s: one(s, 0, counted(2))
    yield "produce: no records", lambda s: one(s, 0, counted(0))
    yield "produce: an unknown codec", lambda s: one(s, 0, batch(attributes=7))
    yield "produce: not gzip", lambda s: one(s, 0, batch(attributes=1))
    yield "produce: a control batch", lambda s: one(s, 0, batch(attributes=0x20))
    yield "produce: a transactional batch", lambda s: one(s, 0, batch(attributes=0x10))
    yield "produce: a transactional batch with an id", lambda s: one(
        s, 0, batch(attributes=0x10, producer_id=7, epoch=0, sequence=0)
    )
    yield "produce: append time from a client", lambda s: one(s, 4, batch(attributes=8))
    yield "produce: a sequence without a producer", lambda s: one(s, 0, batch(sequence=3))
    yield "produce: a producer without a sequence", lambda s: one(s, 0, batch(producer_id=7, epoch=0))
    yield "produce: a producer without an epoch", lambda s: one(s, 0, batch(producer_id=7, sequence=0))
    yield "produce: too large", lambda s: s.ask(produce("small", batch([b"x" * 200])))
    yield "produce: a key that compaction needs", lambda s: s.ask(produce("compacted", batch(key=None)))
    yield "produce: in the future", lambda s: s.ask(produce("strict", batch(timestamp=int(time.time() * 1000) + 60_000)))
    yield "produce: without a time", lambda s: one(s, 0, batch(timestamp=-1))
    first = {"producer_id": 9000, "epoch": 3}
    yield "produce: a new producer at sequence 5", lambda s: one(s, 1, batch(sequence=5, **first))
    yield "produce: its next", lambda s: one(s, 1, batch(sequence=6, **first))
    yield "produce: its last again", lambda s: one(s, 1, batch(sequence=6, **first))
    yield "produce: a gap", lambda s: one(s, 1, batch(sequence=9, **first))
    yield "produce: an older sequence", lambda s: one(s, 1, batch(sequence=2, **first))
    yield "produce: an older epoch", lambda s: one(s, 1, batch(producer_id=9000, epoch=2, sequence=7))
    yield "produce: a newer epoch at 3", lambda s: one(s, 1, batch(producer_id=9000, epoch=4, sequence=3))
    yield "produce: a newer epoch at 0", lambda s: one(s, 1, batch(producer_id=9000, epoch=4, sequence=0))
    yield "produce: another length", lambda s: one(
        s, 2, batch([b"a", b"b"], producer_id=9001, epoch=0, sequence=0), batch(producer_id=9001, epoch=0, sequence=0)
    )
    yield "produce: an overlap", lambda s: one(s, 2, batch([b"b", b"c"], producer_id=9001, epoch=0, sequence=1))

    yield "fetch: everything", lambda s: s.ask(fetch("t", 1))
    yield "fetch: at the end", lambda s: s.ask(fetch("t", 6))
    yield "fetch: an empty log", lambda s: s.ask(fetch("t", 0, 1))
    yield "fetch: before the start", lambda s: s.ask(fetch("t", 0))
    yield "fetch: beyond the end", lambda s: s.ask(fetch("t", 99))
    yield "fetch: a negative offset", lambda s: s.ask(fetch("t", -1))
    yield "fetch: an unknown topic", lambda s: s.ask(fetch("nope", 0))
    yield "fetch: an unknown partition", lambda s: s.ask(fetch("t", 0, 9))
    yield "fetch: an unknown id", lambda s: s.ask(fetch(None, 0, version=13, topic_id=NOBODY))
    yield "fetch: a known id", lambda s: s.ask(fetch(None, 1, version=13, topic_id=s.topic_id("t")))
    yield "fetch: a later epoch", lambda s: s.ask(fetch("t", 1, epoch=5))
    yield "fetch: one byte", lambda s: s.ask(fetch("t", 1, size=1))
    yield "fetch: an unknown session", lambda s: s.ask(fetch("t", 1, session=(77, 3)))
    yield "fetch: a diverging epoch", lambda s: s.ask(fetch("t", 5, last=0))
    yield "fetch: a later last epoch", lambda s: s.ask(fetch("t", 5, last=7))

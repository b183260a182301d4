"""Cases for compare_with_kafka.py: which APIs there are, metadata, topics, and where their partitions begin and end."""

import uuid

from kafka.protocol.admin import (
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
)
from kafka.protocol.consumer import ListOffsetsRequest, OffsetForLeaderEpochRequest
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest

# When the first record of the topic `t` was produced, in milliseconds; each of the four others a second after the one before.
START = 1_700_000_000_000
# The id of no topic.
NOBODY = uuid.UUID(int=0xDEAD)


def new_topic(name, partitions=1, replicas=1, assignments=(), configs=()):
    topic = CreateTopicsRequest.CreatableTopic
    return topic(
        name=name,
        num_partitions=partitions,
        replication_factor=replicas,
        assignments=[
            topic.CreatableReplicaAssignment(partition_index=index, broker_ids=list(brokers))
            for index, brokers in assignments
        ],
        configs=[topic.CreatableTopicConfig(name=key, value=value) for key, value in configs],
    )


def metadata(names, version=12, auto=False):
    topics = names and [MetadataRequest.MetadataRequestTopic(name=name, topic_id=uuid.UUID(int=0)) for name in names]
    return MetadataRequest(
        version=version,
        topics=topics,
        allow_auto_topic_creation=auto,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )


def metadata_by_id(topic_id, name=None):
    topic = MetadataRequest.MetadataRequestTopic(name=name, topic_id=topic_id)
    return MetadataRequest(
        version=12, topics=[topic], allow_auto_topic_creation=False, include_topic_authorized_operations=False
    )


def create_topics(*topics, validate=False, version=7):
    return CreateTopicsRequest(version=version, topics=list(topics), timeout_ms=60_000, validate_only=validate)


def create_partitions(*topics, validate=False):
    """Each topic is (name, count, assignments or None)."""
    kind = CreatePartitionsRequest.CreatePartitionsTopic
    return CreatePartitionsRequest(
        version=3,
        topics=[
            kind(
                name=name,
                count=count,
                assignments=assignments
                and [kind.CreatePartitionsAssignment(broker_ids=list(brokers)) for brokers in assignments],
            )
            for name, count, assignments in topics
        ],
        timeout_ms=60_000,
        validate_only=validate,
    )


def delete_topics(*pairs):
    states = [DeleteTopicsRequest.DeleteTopicState(name=name, topic_id=topic_id) for name, topic_id in pairs]
    return DeleteTopicsRequest(version=6, topics=states, timeout_ms=60_000)


def list_offsets(topic, *asked, version=10, replica=-1, isolation=0):
    """Each asked is (partition, timestamp, current leader epoch)."""
    kind = ListOffsetsRequest.ListOffsetsTopic
    partitions = [
        kind.ListOffsetsPartition(partition_index=index, timestamp=stamp, current_leader_epoch=epoch)
        for index, stamp, epoch in asked
    ]
    return ListOffsetsRequest(
        version=version,
        replica_id=replica,
        isolation_level=isolation,
        topics=[kind(name=topic, partitions=partitions)],
        timeout_ms=60_000,
    )


def epoch_end(topic, partition, current, epoch):
    kind = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    asked = kind.OffsetForLeaderPartition(partition=partition, current_leader_epoch=current, leader_epoch=epoch)
    return OffsetForLeaderEpochRequest(version=4, replica_id=-1, topics=[kind(topic=topic, partitions=[asked])])


def delete_records(topic, *asked):
    kind = DeleteRecordsRequest.DeleteRecordsTopic
    partitions = [kind.DeleteRecordsPartition(partition_index=index, offset=offset) for index, offset in asked]
    return DeleteRecordsRequest(version=2, topics=[kind(name=topic, partitions=partitions)], timeout_ms=60_000)


def cases():
    """(name, function of a side): in order; later ones may see what earlier ones did."""
    yield "api versions", lambda s: {
        str(api["api_key"]): f"{api['min_version']} to {api['max_version']}"
        for api in s.ask(ApiVersionsRequest(version=4, client_software_name="x", client_software_version="1"))["api_keys"]
    }

    for version in (0, 1, 4, 9, 12):
        yield f"metadata v{version} of an unknown topic", lambda s, v=version: s.ask(metadata([f"nope{v}"], v))
    for name in ("", ".", "a b", "x" * 250):
        yield f"metadata of the name {name[:5]!r}", lambda s, n=name: s.ask(metadata([n]))
        yield f"metadata of the name {name[:5]!r}, creating", lambda s, n=name: s.ask(metadata([n], auto=True))
    yield "metadata of an unknown id", lambda s: s.ask(metadata_by_id(NOBODY))
    yield "metadata of a known id", lambda s: s.ask(metadata_by_id(s.topic_id("t")))
    yield "metadata of neither", lambda s: s.ask(metadata_by_id(uuid.UUID(int=0)))
    yield "metadata of both", lambda s: s.ask(metadata_by_id(s.topic_id("t"), "t"))
    yield "metadata of nothing", lambda s: s.ask(metadata([]))

    def everything(side):
        # The first two versions of Metadata have created what they asked for, and Kafka takes its time.
        return side.ask_until(
            metadata(None),
            lambda answer: {"nope0", "nope1"} <= {t["name"] for t in answer["topics"] if t["error_code"] == 0},
        )

    yield "metadata of everything", everything

    for name, topic in [
        ("exists", new_topic("t")),
        ("no replicas", new_topic("n1", replicas=0)),
        ("too many replicas", new_topic("n2", replicas=2)),
        ("replicas -2", new_topic("n3", replicas=-2)),
        ("no partitions", new_topic("n4", 0)),
        ("partitions -2", new_topic("n5", -2)),
        ("defaults", new_topic("n6", -1, -1)),
        ("no name", new_topic("")),
        ("a dot", new_topic(".")),
        ("a space", new_topic("a b")),
        ("a long name", new_topic("x" * 250)),
        ("a collision", new_topic("a_b")),
        ("an unknown config", new_topic("n7", configs=[("nope", "1")])),
        ("a bad value", new_topic("n8", configs=[("retention.ms", "soon")])),
        ("a null value", new_topic("n9", configs=[("retention.ms", None)])),
        ("an assignment", new_topic("n10", -1, -1, assignments=[(0, [1]), (1, [1])])),
        ("an assignment and a count", new_topic("n11", 1, 1, assignments=[(0, [1])])),
        ("a gap in an assignment", new_topic("n12", -1, -1, assignments=[(0, [1]), (2, [1])])),
        ("a broker twice", new_topic("n13", -1, -1, assignments=[(0, [1, 1])])),
        ("an unknown broker", new_topic("n14", -1, -1, assignments=[(0, [9])])),
        ("an empty assignment", new_topic("n15", -1, -1, assignments=[(0, [])])),
        ("a partition twice", new_topic("n16", -1, -1, assignments=[(0, [1]), (0, [1])])),
        ("an internal name", new_topic("__cluster_metadata")),
    ]:
        yield f"create: {name}", lambda s, t=topic: s.ask(create_topics(t))
        yield f"create, validated only: {name}", lambda s, t=topic: s.ask(create_topics(t, validate=True))
    yield "create: twice in one request", lambda s: s.ask(create_topics(new_topic("d"), new_topic("d")))
    yield "create: nothing", lambda s: s.ask(create_topics())

    for name, *asked in [
        ("fewer", ("t", 1, None)),
        ("as many", ("t", 2, None)),
        ("none", ("t", 0, None)),
        ("minus one", ("t", -1, None)),
        ("an unknown topic", ("nope", 3, None)),
        ("too few assignments", ("t", 4, [[1]])),
        ("an unknown broker", ("t", 3, [[9]])),
        ("a broker twice", ("t", 3, [[1, 1]])),
        ("an empty assignment", ("t", 3, [[]])),
        ("a topic twice", ("t", 3, None), ("t", 4, None)),
        ("one more", ("empty", 2, [[1]])),
    ]:
        yield f"partitions: {name}", lambda s, a=asked: s.ask(create_partitions(*a))
    yield "partitions: validated only", lambda s: s.ask(create_partitions(("t", 3, None), validate=True))

    zero = uuid.UUID(int=0)
    yield "delete: an unknown name", lambda s: s.ask(delete_topics(("nope", zero)))
    yield "delete: an unknown id", lambda s: s.ask(delete_topics((None, NOBODY)))
    yield "delete: neither", lambda s: s.ask(delete_topics((None, zero)))
    yield "delete: both", lambda s: s.ask(delete_topics(("gone", s.topic_id("gone"))))
    yield "delete: twice", lambda s: s.ask(delete_topics(("gone", zero), ("gone", zero)))
    yield "delete: name and id of one topic", lambda s: s.ask(
        delete_topics(("gone", zero), (None, s.topic_id("gone")))
    )
    yield "delete: by name", lambda s: s.ask(delete_topics(("gone", zero)))

    for stamp in (-1, -2, -3, -4, -5, -6, -7, 0, START, START + 1500, START + 4000, START + 4001):
        yield f"offsets at {stamp}", lambda s, at=stamp: s.ask(list_offsets("t", (0, at, -1)))
        yield f"offsets of an empty log at {stamp}", lambda s, at=stamp: s.ask(list_offsets("t", (1, at, -1)))
    for version in (1, 4, 7, 8, 9):
        for stamp in (-3, -4, -5):
            yield f"offsets v{version} at {stamp}", lambda s, v=version, at=stamp: s.ask(
                list_offsets("t", (0, at, -1), version=v)
            )
    yield "offsets of an unknown topic", lambda s: s.ask(list_offsets("nope", (0, -1, -1)))
    yield "offsets of an unknown partition", lambda s: s.ask(list_offsets("t", (9, -1, -1)))
    yield "offsets in the right epoch", lambda s: s.ask(list_offsets("t", (0, -1, 0)))
    yield "offsets in a later epoch", lambda s: s.ask(list_offsets("t", (0, -1, 5)))
    yield "offsets of a partition twice", lambda s: s.ask(list_offsets("t", (0, -1, -1), (0, -2, -1)))
    yield "offsets, committed", lambda s: s.ask(list_offsets("t", (0, -1, -1), isolation=1))

    for current, epoch in [(-1, 0), (0, 0), (-1, 1), (-1, -1), (5, 0), (-1, 5)]:
        yield f"end of epoch {epoch} in {current}", lambda s, c=current, e=epoch: s.ask(epoch_end("t", 0, c, e))
    yield "end of an epoch of an unknown topic", lambda s: s.ask(epoch_end("nope", 0, -1, 0))
    yield "end of an epoch of an unknown partition", lambda s: s.ask(epoch_end("t", 9, -1, 0))
    yield "end of an epoch of an empty log", lambda s: s.ask(epoch_end("t", 1, -1, 0))

    for name, topic, *asked in [
        ("beyond the end", "t", (0, 99)),
        ("before the start", "t", (0, 0)),
        ("at the start", "t", (0, 1)),
        ("minus two", "t", (0, -2)),
        ("an unknown topic", "nope", (0, 1)),
        ("an unknown partition", "t", (9, 1)),
        ("a partition twice", "t", (0, 1), (0, 99)),
        ("to the end", "produced", (11, -1)),
        ("a compacted topic", "compacted", (0, 0)),
    ]:
        yield f"delete records: {name}", lambda s, t=topic, a=asked: s.ask(delete_records(t, *a))

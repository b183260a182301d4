#!/usr/bin/env python3
"""Asks a real Apache Kafka broker and one of ours the same things, and shows where the answers differ.

    tests/clients/run.sh --script tests/clients/compare_with_kafka.py [--only WORD] [--show]

One broker and one controller on either side. What cannot be equal (ids, ports, texts of messages) is made
equal first. A difference that EXPECTED names is meant (docs/differences.md says why); any other is printed,
and the exit code is 1. So is an expectation that nothing meets any more. --show prints every answer.
"""

import argparse
import json
import re
import struct
import sys
import time
import uuid

from kafka.protocol.admin import (
    AlterConfigsRequest,
    AlterReplicaLogDirsRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeClusterRequest,
    DescribeConfigsRequest,
    DescribeLogDirsRequest,
    ElectLeadersRequest,
    IncrementalAlterConfigsRequest,
)
from kafka.protocol.consumer import FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

import compare_consumer_groups
from compare_expected import EXPECTED
from own_cluster import OwnCluster
from real_kafka import RealKafka
from wire import Closed, NoAnswer, Wire, batch, seal

# Seconds until something counts as never coming; and where Kafka is known not to answer.
PATIENCE, SILENCE = 120.0, 20.0
START = 1_700_000_000_000
NOBODY = uuid.UUID(int=0xDEAD)
TOPIC, BROKER, GROUP, LOGGER = 2, 4, 32, 8
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
RATE_OF_MOVES = "replica.alter.log.dirs.io.max.bytes.per.second"


class Side:
    """One of the two: the cases speak to it through this."""

    def __init__(self, bootstrap):
        self.wire = Wire(bootstrap)

    def ask(self, request, **options):
        try:
            return self.wire.ask(request, **options).to_dict(json=False)
        except Closed:
            return "the connection was closed"
        except NoAnswer:
            return "no answer"

    def create(self, name, partitions=1, configs=()):
        request = CreateTopicsRequest(
            version=7,
            topics=[new_topic(name, partitions, 1, configs=configs)],
            timeout_ms=60_000,
            validate_only=False,
        )
        answer = self.ask(request)
        assert answer["topics"][0]["error_code"] == 0, answer
        # Kafka answers before the broker knows the topic and leads it.
        ends = list_offsets(name, *((index, -1, -1) for index in range(partitions)))
        self.ask_until(ends, lambda answer: not any(led["error_code"] for led in answer["topics"][0]["partitions"]))

    def ask_until(self, request, shows):
        """Asks until the answer shows something: Kafka's controller answers before its broker has followed."""
        deadline = time.monotonic() + PATIENCE
        while not shows(answer := self.ask(request)):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        return answer

    def metadata(self, name):
        return self.ask(metadata([name]))["topics"][0]

    def topic_id(self, name):
        return self.metadata(name)["topic_id"]


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


def log_dirs(side, *topics, version=4, everything=False):
    """What lies in a broker's directories, wherever it was placed; each topic is (name, partitions)."""
    kind = DescribeLogDirsRequest.DescribableLogDirTopic
    named = [kind(topic=name, partitions=partitions) for name, partitions in topics]
    answer = side.ask(DescribeLogDirsRequest(version=version, topics=None if everything else named))
    directories, logs = [], []
    for found in answer["results"]:
        sizes = [size if size == -1 else "a size" for size in (found.get("total_bytes", -1), found.get("usable_bytes", -1))]
        directories.append([found["log_dir"].rsplit("/", 1)[1], found["error_code"], *sizes])
        for topic in found["topics"]:
            logs += [[topic["name"], *partition.values()] for partition in topic["partitions"]]
    # An answer without a code has no field for it.
    return {"error_code": answer.get("error_code"), "directories": sorted(directories), "logs": sorted(logs)}


def homes(side, topic, partition=0):
    """The directories of a partition: those that have it, and those that have not."""
    asked = DescribeLogDirsRequest.DescribableLogDirTopic(topic=topic, partitions=[partition])
    found = side.ask(DescribeLogDirsRequest(version=4, topics=[asked]))["results"]
    return [d["log_dir"] for d in found if d["topics"]], [d["log_dir"] for d in found if not d["topics"]]


def alter_dirs(*wishes, version=2):
    """Each wish is (path, topic, partitions)."""
    kind = AlterReplicaLogDirsRequest.AlterReplicaLogDir
    return AlterReplicaLogDirsRequest(
        version=version,
        dirs=[
            kind(path=path, topics=[kind.AlterReplicaLogDirTopic(name=name, partitions=partitions)])
            for path, name, partitions in wishes
        ],
    )


def move(side, topic):
    """Has partition 0 moved, and waits until it is there: what was answered, and how the directories look then."""
    [home], [other] = homes(side, topic)
    answer = side.ask(alter_dirs((other, topic, [0])))
    deadline = time.monotonic() + PATIENCE
    while homes(side, topic) != ([other], [home]):
        assert time.monotonic() < deadline, f"{topic} stays in {home}"
        time.sleep(0.05)
    return answer, log_dirs(side, (topic, [0]))


def wished(side, name):
    """Wishes for a directory before there is a topic: what was answered, and where the topic is made."""
    _, [other] = homes(side, "t")
    answer = side.ask(alter_dirs((other, name, [0])))
    side.create(name)
    return answer, homes(side, name)[0] == [other]


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


def describe_configs(*resources, synonyms=True, documentation=False):
    """Each resource is (type, name, keys or None)."""
    kind = DescribeConfigsRequest.DescribeConfigsResource
    return DescribeConfigsRequest(
        version=4,
        resources=[kind(resource_type=t, resource_name=n, configuration_keys=keys) for t, n, keys in resources],
        include_synonyms=synonyms,
        include_documentation=documentation,
    )


def alter(*resources, validate=False):
    """IncrementalAlterConfigs; each resource is (type, name, [(key, operation, value)])."""
    kind = IncrementalAlterConfigsRequest.AlterConfigsResource
    return IncrementalAlterConfigsRequest(
        version=1,
        resources=[
            kind(
                resource_type=t,
                resource_name=n,
                configs=[kind.AlterableConfig(name=k, config_operation=op, value=v) for k, op, v in configs],
            )
            for t, n, configs in resources
        ],
        validate_only=validate,
    )


def alter_all(*resources, validate=False):
    """AlterConfigs; each resource is (type, name, [(key, value)])."""
    kind = AlterConfigsRequest.AlterConfigsResource
    return AlterConfigsRequest(
        version=2,
        resources=[
            kind(resource_type=t, resource_name=n, configs=[kind.AlterableConfig(name=k, value=v) for k, v in configs])
            for t, n, configs in resources
        ],
        validate_only=validate,
    )


def elect(kind, topics):
    topic = ElectLeadersRequest.TopicPartitions
    return ElectLeadersRequest(
        version=2,
        election_type=kind,
        topic_partitions=topics and [topic(topic=name, partitions=list(partitions)) for name, partitions in topics],
        timeout_ms=60_000,
    )


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


def init_producer(transactional_id, producer_id=-1, epoch=-1):
    return InitProducerIdRequest(
        version=5,
        transactional_id=transactional_id,
        transaction_timeout_ms=60_000,
        producer_id=producer_id,
        producer_epoch=epoch,
    )


def find(kind, *keys, version=6):
    return FindCoordinatorRequest(version=version, key_type=kind, coordinator_keys=list(keys))


def describe_cluster(version=2, endpoints=1):
    return DescribeClusterRequest(
        version=version,
        include_cluster_authorized_operations=True,
        endpoint_type=endpoints,
        include_fenced_brokers=True,
    )


def prepare(side):
    """The same ground on both sides."""
    # Its records are old: nothing but the cases may delete them.
    side.create("t", 2, configs=[("retention.ms", "-1")])
    for i in range(5):
        answer = side.ask(produce("t", batch([b"v%d" % i], timestamp=START + i * 1000)))
        assert answer["responses"][0]["partition_responses"][0]["error_code"] == 0, answer
    assert side.ask(delete_records("t", (0, 1)))["topics"][0]["partitions"][0]["error_code"] == 0
    side.create("empty")
    side.create("compacted", configs=[("cleanup.policy", "compact")])
    side.create("a.b")
    side.create("small", configs=[("max.message.bytes", "200")])
    side.create("strict", configs=[("message.timestamp.after.max.ms", "1000")])
    side.create("produced", 12)
    side.create("gone")
    side.create("configured", configs=[("retention.ms", "5000")])
    side.create("work", 4)


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

    yield "describe a topic", lambda s: by_name(s.ask(describe_configs((TOPIC, "configured", None))))
    yield "describe a topic without synonyms", lambda s: s.ask(
        describe_configs((TOPIC, "configured", ["retention.ms", "cleanup.policy"]), synonyms=False)
    )
    yield "describe a broker", lambda s: by_name(s.ask(describe_configs((BROKER, "1", None))))
    yield "describe the default of brokers", lambda s: by_name(s.ask(describe_configs((BROKER, "", None))))
    for name, *resource in [
        ("an unknown topic", TOPIC, "nope", None),
        ("no topic", TOPIC, "", None),
        ("a bad topic name", TOPIC, "a b", None),
        ("another broker", BROKER, "9", None),
        ("a broker with a name", BROKER, "one", None),
        ("an unknown type", 77, "x", None),
        ("an unknown key", TOPIC, "t", ["nope"]),
    ]:
        yield f"describe {name}", lambda s, r=resource: s.ask(describe_configs(tuple(r)))

    yield "describe no keys: all", lambda s: (
        len(s.ask(describe_configs((TOPIC, "t", [])))["results"][0]["configs"]) > 20
    )

    for name, kind, target, *configs in [
        ("an unknown key", TOPIC, "configured", ("nope", SET, "1")),
        ("a bad number", TOPIC, "configured", ("retention.ms", SET, "soon")),
        ("a number below its least", TOPIC, "configured", ("segment.bytes", SET, "1")),
        ("a bad enumeration", TOPIC, "configured", ("cleanup.policy", SET, "nope")),
        ("a bad codec", TOPIC, "configured", ("compression.type", SET, "nope")),
        ("null", TOPIC, "configured", ("retention.ms", SET, None)),
        ("empty", TOPIC, "configured", ("retention.ms", SET, "")),
        ("append to a number", TOPIC, "configured", ("retention.ms", APPEND, "1")),
        ("append to a list", TOPIC, "configured", ("cleanup.policy", APPEND, "compact")),
        ("append what is there", TOPIC, "configured", ("cleanup.policy", APPEND, "compact")),
        ("subtract from a list", TOPIC, "configured", ("cleanup.policy", SUBTRACT, "compact")),
        ("subtract what is not there", TOPIC, "configured", ("cleanup.policy", SUBTRACT, "compact")),
        ("delete what is not set", TOPIC, "configured", ("segment.ms", DELETE, None)),
        ("delete an unknown key", TOPIC, "configured", ("nope", DELETE, None)),
        ("a key twice", TOPIC, "configured", ("retention.ms", SET, "1"), ("retention.ms", SET, "2")),
        ("an unknown operation", TOPIC, "configured", ("retention.ms", 9, "1")),
        ("an unknown topic", TOPIC, "nope", ("retention.ms", SET, "1")),
        ("no topic", TOPIC, "", ("retention.ms", SET, "1")),
        ("a bad topic name", TOPIC, "a b", ("retention.ms", SET, "1")),
        ("another broker", BROKER, "9", ("log.retention.ms", SET, "1000")),
        ("a broker with a name", BROKER, "one", ("log.retention.ms", SET, "1000")),
        ("a read-only key of a broker", BROKER, "1", ("log.dirs", SET, "/tmp")),
        ("a read-only key of all brokers", BROKER, "", ("node.id", SET, "3")),
        ("an unknown key of a broker", BROKER, "1", ("nope", SET, "3")),
        ("a topic's key of a broker", BROKER, "1", ("retention.ms", SET, "3000")),
        ("the rate of moves", BROKER, "1", (RATE_OF_MOVES, SET, "1000000")),
        ("the rate of moves of all brokers", BROKER, "", (RATE_OF_MOVES, SET, "0")),
        ("no rate of moves", BROKER, "1", (RATE_OF_MOVES, SET, "-1")),
        ("a fraction as the rate of moves", BROKER, "1", (RATE_OF_MOVES, SET, "0.5")),
        ("an unknown type", 77, "x", ("retention.ms", SET, "1")),
        ("nothing", TOPIC, "configured"),
    ]:
        yield f"alter: {name}", lambda s, r=(kind, target, configs): s.ask(alter(r))
        yield f"alter, validated only: {name}", lambda s, r=(kind, target, configs): s.ask(alter(r, validate=True))
    yield "alter: a resource twice", lambda s: s.ask(
        alter((TOPIC, "small", [("retention.ms", SET, "1")]), (TOPIC, "small", [("retention.ms", SET, "2")]))
    )
    for name, kind, target, *configs in [
        ("an unknown key", TOPIC, "configured", ("nope", "1")),
        ("a bad number", TOPIC, "configured", ("retention.ms", "soon")),
        ("null", TOPIC, "configured", ("retention.ms", None)),
        ("an unknown topic", TOPIC, "nope", ("retention.ms", "1")),
        ("no topic", TOPIC, "", ("retention.ms", "1")),
        ("a key twice", TOPIC, "configured", ("retention.ms", "1"), ("retention.ms", "2")),
        ("one key", TOPIC, "configured", ("segment.ms", "60000")),
    ]:
        yield f"alter all: {name}", lambda s, r=(kind, target, configs): s.ask(alter_all(r))
    def after_that(side):
        def shows(answer):
            values = {config["name"]: config["value"] for config in answer["results"][0]["configs"]}
            # What the last of these has set, and what it has not named.
            return (values["segment.ms"], values["retention.ms"]) == ("60000", "604800000")

        return by_name(side.ask_until(describe_configs((TOPIC, "configured", None)), shows))

    yield "describe after that", after_that

    def cluster_default(side):
        side.ask(alter((BROKER, "", [("log.retention.ms", SET, "777000")])))
        side.ask(alter((BROKER, "1", [("log.segment.bytes", SET, "7770000")])))
        asked = describe_configs((TOPIC, "small", ["retention.ms", "segment.bytes"]), (BROKER, "1", ["log.retention.ms"]))

        def shows(answer):
            of_topic, of_broker = (
                {config["name"]: config["value"] for config in result["configs"]} for result in answer["results"]
            )
            return (
                of_topic == {"retention.ms": "777000", "segment.bytes": "7770000"}
                and of_broker == {"log.retention.ms": "777000"}
            )

        answer = side.ask_until(asked, shows)
        side.ask(alter((BROKER, "", [("log.retention.ms", DELETE, None)])))
        side.ask(alter((BROKER, "1", [("log.segment.bytes", DELETE, None)])))
        return answer

    yield "a topic under brokers' dynamic settings", cluster_default

    def rate_of_moves(side):
        asked = describe_configs((BROKER, "1", [RATE_OF_MOVES]))

        def shows(answer):
            return [config["value"] for config in answer["results"][0]["configs"]] == ["1000000"]

        answer = side.ask_until(asked, shows)
        for broker in ("1", ""):
            side.ask(alter((BROKER, broker, [(RATE_OF_MOVES, DELETE, None)])))
        return by_name(answer)

    yield "describe the rate of moves", rate_of_moves

    yield "elect everything preferred", lambda s: s.ask(elect(0, None))
    yield "elect one", lambda s: s.ask(elect(0, [("t", [0, 1])]))
    yield "elect unclean", lambda s: s.ask(elect(1, [("t", [0])]))
    yield "elect an unknown topic", lambda s: s.ask(elect(0, [("nope", [0])]))
    yield "elect an unknown partition", lambda s: s.ask(elect(0, [("t", [9])]))
    yield "elect an unknown type", lambda s: s.ask(elect(7, [("t", [0])]))
    yield "elect nothing", lambda s: s.ask(elect(0, []))
    yield "elect one twice", lambda s: s.ask(elect(0, [("t", [0, 0])]))

    for version in (0, 1, 2):
        yield f"cluster v{version}", lambda s, v=version: s.ask(describe_cluster(v))
    yield "cluster, controllers", lambda s: s.ask(describe_cluster(2, 2))
    yield "cluster, an unknown kind", lambda s: s.ask(describe_cluster(2, 9))

    for version in (1, 2, 3, 4):
        yield f"log dirs v{version}", lambda s, v=version: log_dirs(s, ("t", [0, 1]), ("produced", [0]), version=v)
    yield "log dirs: an unknown topic", lambda s: log_dirs(s, ("nope", [0]))
    yield "log dirs: an unknown partition", lambda s: log_dirs(s, ("t", [9, -1]))
    yield "log dirs: a topic twice", lambda s: log_dirs(s, ("t", [0]), ("t", [0, 0]))
    yield "log dirs: no topics", lambda s: log_dirs(s)
    yield "log dirs: every topic", lambda s: [log for log in log_dirs(s, everything=True)["logs"] if log[0] == "t"]
    here = lambda s: homes(s, "t")[0][0]
    for version in (1, 2):
        yield f"alter dirs v{version}: where it is", lambda s, v=version: s.ask(alter_dirs((here(s), "t", [0]), version=v))
    yield "alter dirs: nothing", lambda s: s.ask(alter_dirs())
    yield "alter dirs: an unknown directory", lambda s: s.ask(alter_dirs(("/no/such/disk", "t", [0])))
    yield "alter dirs: no path", lambda s: s.ask(alter_dirs(("", "t", [0])))
    yield "alter dirs: a relative path", lambda s: s.ask(alter_dirs(("disk-1", "t", [0])))
    yield "alter dirs: a slash too many", lambda s: s.ask(alter_dirs((here(s) + "/", "t", [0])))
    yield "alter dirs: an unknown topic", lambda s: s.ask(alter_dirs((here(s), "nope", [0])))
    yield "alter dirs: a bad name", lambda s: s.ask(alter_dirs((here(s), "a b", [0])))
    yield "alter dirs: an unknown partition", lambda s: s.ask(alter_dirs((here(s), "t", [9, -1])))
    yield "alter dirs: a long name", lambda s: s.ask(alter_dirs((here(s), "x" * 213, [0]), (here(s), "x" * 214, [0])))
    yield "alter dirs: twice", lambda s: s.ask(alter_dirs(("/no/such/disk", "t", [0]), (here(s), "t", [0])))
    yield "alter dirs: to another", lambda s: move(s, "t")
    yield "alter dirs: and back", lambda s: move(s, "t")
    yield "alter dirs: before the topic is there", lambda s: wished(s, "wished")

    def producer_id(side, *arguments):
        # Kafka's broker asks its controller for a block of ids while the first client waits.
        loading = 14
        return side.ask_until(init_producer(*arguments), lambda answer: answer["error_code"] != loading)

    yield "a producer's id", lambda s: producer_id(s, None)
    yield "a producer's id, an empty name", lambda s: producer_id(s, "")
    yield "a producer's id, its own", lambda s: producer_id(s, None, 5, 1)
    yield "a producer's id, half its own", lambda s: producer_id(s, None, 5, -1)
    yield "find: an unknown kind", lambda s: s.ask(find(9, "g"))
    yield "find: no keys", lambda s: s.ask(find(0))

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
    yield "produce: null", lambda s: s.ask(produce("produced", None), patience=SILENCE)
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

    yield from compare_consumer_groups.cases()


def by_name(answer):
    """Lists of configurations as maps: their order means nothing."""
    for result in answer["results"]:
        result["configs"] = {config.pop("name"): config for config in result["configs"]}
    return answer


# What two clusters can never have in common.
_VOLATILE = {"topic_id", "cluster_id", "host", "port", "throttle_time_ms", "log_append_time_ms", "session_id"}
_BATCH_EPOCH = slice(12, 16)


def plain(value, key=None):
    """An answer, with what may differ made the same."""
    if isinstance(value, dict):
        return {k: plain(v, k) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, (list, tuple)):
        return [plain(element) for element in value]
    if key in ("error_message", "documentation") and value is not None:
        # Texts differ; whether there is one counts.
        return "a text"
    if key == "producer_id" and value is not None and value >= 0:
        return "an id"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(bytes(value))} bytes"
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)


def differences(kafka, ours, path=""):
    """Where two answers differ: (path, Kafka's, ours)."""
    if isinstance(kafka, dict) and isinstance(ours, dict):
        for key in list(kafka) + [key for key in ours if key not in kafka]:
            if key not in ours:
                yield f"{path}.{key} (only Kafka)", kafka[key], None
            elif key not in kafka:
                yield f"{path}.{key} (only Ottla)", None, ours[key]
            else:
                yield from differences(kafka[key], ours[key], f"{path}.{key}")
    elif isinstance(kafka, list) and isinstance(ours, list) and len(kafka) == len(ours):
        keyed = sorted_alike(kafka), sorted_alike(ours)
        for index, (a, b) in enumerate(zip(*keyed)):
            yield from differences(a, b, f"{path}[{index}]")
    elif kafka != ours and not (path.endswith("error_message") and kafka is None):
        yield path, kafka, ours


def sorted_alike(elements):
    return sorted(elements, key=lambda e: json.dumps(e, sort_keys=True) if not isinstance(e, dict) else name_of(e))


def name_of(element):
    for key in ("name", "topic", "topic_name", "partition_index", "partition", "partition_id", "index", "resource_name"):
        if element.get(key) is not None:
            return f"{element[key]}"
    return ""


def compare(only="", show=False):
    """Asks both sides every case whose name has `only`. What it found: the differences that nothing explains, the
    expectations that nothing met, and how many cases there were."""
    settings = ["auto.create.topics.enable=true", "num.partitions=1", *compare_consumer_groups.KAFKA_SETTINGS]
    kafka = RealKafka(settings=settings, disks=2)
    ottla = OwnCluster(brokers=1, controllers=1, disks=2)
    unexplained, met, asked = [], set(), 0
    try:
        kafka.start()
        ottla.start()
        sides = [Side(kafka.bootstrap), Side(ottla.bootstrap)]
        for side in sides:
            prepare(side)
        for name, case in cases():
            if only not in name:
                continue
            asked += 1
            answers = [plain(case(side)) for side in sides]
            if show:
                print(f"{name}\n  {answers[0]}\n  {answers[1]}")
            for path, theirs, ours in differences(*answers):
                place = f"{name}: {path}"
                reason = next((pattern for pattern in EXPECTED if re.fullmatch(pattern, place)), None)
                if reason:
                    met.add(reason)
                else:
                    unexplained.append(f"{place}\n    Kafka {theirs!r}\n    Ottla {ours!r}")
    finally:
        kafka.close()
        ottla.close()
    stale = [] if only else [pattern for pattern in EXPECTED if pattern not in met]
    return unexplained, stale, asked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="only the cases whose name has this word")
    parser.add_argument("--show", action="store_true", help="print every answer")
    arguments = parser.parse_args()
    unexplained, stale, asked = compare(arguments.only, arguments.show)
    for difference in unexplained:
        print(difference)
    for pattern in stale:
        print(f"nothing differs any more as expected here: {pattern}")
    print(f"{asked} cases, {len(unexplained)} differences unexplained, {len(stale)} expectations not met")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())

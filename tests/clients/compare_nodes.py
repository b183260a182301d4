"""Cases for compare_with_kafka.py: what nodes do: elections, the cluster's members, log directories, producers' ids,
coordinators."""

import time

from kafka.protocol.admin import (
    AlterReplicaLogDirsRequest,
    DescribeClusterRequest,
    DescribeLogDirsRequest,
    ElectLeadersRequest,
)
from kafka.protocol.metadata import FindCoordinatorRequest
from kafka.protocol.producer import InitProducerIdRequest

# Seconds until something counts as never coming.
_PATIENCE = 120.0


def elect(kind, topics):
    topic = ElectLeadersRequest.TopicPartitions
    return ElectLeadersRequest(
        version=2,
        election_type=kind,
        topic_partitions=topics and [topic(topic=name, partitions=list(partitions)) for name, partitions in topics],
        timeout_ms=60_000,
    )


def describe_cluster(version=2, endpoints=1):
    return DescribeClusterRequest(
        version=version,
        include_cluster_authorized_operations=True,
        endpoint_type=endpoints,
        include_fenced_brokers=True,
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
    deadline = time.monotonic() + _PATIENCE
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


def cases():
    """(name, function of a side): in order; later ones may see what earlier ones did."""
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

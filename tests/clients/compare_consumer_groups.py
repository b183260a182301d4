"""Cases for compare_with_kafka.py: groups of the KIP-848 protocol, request by request, and what else is asked about them.

Members are played here: a real one would not send what is refused.
"""

import time
import uuid

from kafka.protocol.admin import (
    DeleteGroupsRequest,
    DescribeConfigsRequest,
    DescribeGroupsRequest,
    IncrementalAlterConfigsRequest,
    ListGroupsRequest,
)
from kafka.protocol.consumer import OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest
from kafka.protocol.metadata import FindCoordinatorRequest

from messages import ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest

# Kafka's assignments come at once, as ours do.
KAFKA_SETTINGS = [
    "group.consumer.min.assignment.interval.ms=0",
    "group.consumer.assignment.interval.ms=0",
    "group.consumer.assignor.offload.enable=false",
]

_PATIENCE = 120.0
_NOT_YET = (14, 15, 16)
_GROUP = 32
_NOBODY = uuid.UUID(int=0xDEAD)
_JOINS, _LEAVES, _LEAVES_FOR_A_WHILE = 0, -1, -2


def beat(group, member, epoch, topics=None, owned=None, timeout=-1, version=1, **more):
    """A heartbeat; `owned` are (topic id, partitions)."""
    kind = ConsumerGroupHeartbeatRequest.TopicPartitions
    return ConsumerGroupHeartbeatRequest(
        version=version,
        group_id=group,
        member_id=member,
        member_epoch=epoch,
        rebalance_timeout_ms=timeout,
        subscribed_topic_names=topics,
        topic_partitions=owned and [kind(topic_id=i, partitions=list(p)) for i, p in owned] if owned != [] else [],
        **more,
    )


def join(group, member, topics=("work",), **more):
    return beat(group, member, _JOINS, topics and list(topics), [], timeout=60_000, **more)


def describe(*groups, version=1):
    return ConsumerGroupDescribeRequest(version=version, group_ids=list(groups), include_authorized_operations=False)


def commit(group, member, epoch, version=9):
    topic = OffsetCommitRequest.OffsetCommitRequestTopic
    partition = topic.OffsetCommitRequestPartition(
        partition_index=0, committed_offset=1, committed_leader_epoch=-1, committed_metadata=""
    )
    return OffsetCommitRequest(
        version=version,
        group_id=group,
        member_id=member,
        generation_id_or_member_epoch=epoch,
        topics=[topic(name="work", partitions=[partition])],
    )


def fetch_offsets(group, member, epoch):
    asked = OffsetFetchRequest.OffsetFetchRequestGroup
    topic = asked.OffsetFetchRequestTopics(name="work", partition_indexes=[0])
    return OffsetFetchRequest(
        version=9,
        groups=[asked(group_id=group, member_id=member, member_epoch=epoch, topics=[topic])],
        require_stable=False,
    )


def delete_offsets(group, topic):
    kind = OffsetDeleteRequest.OffsetDeleteRequestTopic
    partition = kind.OffsetDeleteRequestPartition(partition_index=0)
    return OffsetDeleteRequest(version=0, group_id=group, topics=[kind(name=topic, partitions=[partition])])


def describe_configs(group, *keys):
    resource = DescribeConfigsRequest.DescribeConfigsResource
    asked = resource(resource_type=_GROUP, resource_name=group, configuration_keys=list(keys) or None)
    return DescribeConfigsRequest(
        version=4, resources=[asked], include_synonyms=True, include_documentation=False
    )


def alter(group, key, value):
    resource = IncrementalAlterConfigsRequest.AlterConfigsResource
    config = resource.AlterableConfig(name=key, config_operation=0 if value is not None else 1, value=value)
    wish = resource(resource_type=_GROUP, resource_name=group, configs=[config])
    return IncrementalAlterConfigsRequest(version=1, resources=[wish], validate_only=False)


def ready(side, group):
    """Waits until the group's coordinator answers for it."""
    find = FindCoordinatorRequest(version=6, key_type=0, coordinator_keys=[group])
    side.ask_until(find, lambda answer: answer["coordinators"][0]["error_code"] == 0)
    side.ask_until(describe(group), lambda answer: answer["groups"][0]["error_code"] not in _NOT_YET)


def settled(side, group, *members):
    """Lets members that do what they are told send heartbeats until none is told anything new: (member, its epoch,
    what it has by topic id). Returns the same."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        told, after = False, []
        for member, epoch, owned in members:
            answer = side.ask(beat(group, member, epoch, owned=list(owned.items()) or []))
            assert answer["error_code"] == 0 and time.monotonic() < deadline, answer
            if answer["assignment"] is not None:
                topics = answer["assignment"]["topic_partitions"]
                now = {topic["topic_id"]: sorted(topic["partitions"]) for topic in topics}
                told |= now != owned
                owned = now
            told |= answer["member_epoch"] != epoch
            after.append((member, answer["member_epoch"], owned))
        members = after
        if not told:
            return members


def seen(answer):
    """A description without what differs between two runs."""
    answer["groups"].sort(key=lambda group: group["group_id"])
    for group in answer["groups"]:
        group["members"].sort(key=lambda member: member["member_id"])
        for member in group["members"]:
            for which in ("assignment", "target_assignment"):
                topics = member[which]["topic_partitions"]
                topics.sort(key=lambda topic: topic["topic_name"])
                for topic in topics:
                    topic["partitions"] = sorted(topic["partitions"])
    return answer


def counted(side, group):
    """How many partitions each member has and is to have: which ones is the assignor's choice."""
    [described] = side.ask(describe(group))["groups"]

    def count(assignment):
        return sum(len(topic["partitions"]) for topic in assignment["topic_partitions"])

    shares = sorted((count(member["assignment"]), count(member["target_assignment"])) for member in described["members"])
    return {"state": described["group_state"], "error_code": described["error_code"], "shares": [str(s) for s in shares]}


def first_answer(group, request):
    """The answer to a first request about a group."""

    def asked(side):
        ready(side, group)
        return side.ask(request)

    return asked


def refusals():
    """What no member sends."""
    g = "refusing"
    for name, request in {
        "no group": join("", "m"),
        "no member": join(g, ""),
        "an unknown group": beat("nobody-s", "m", 3),
        "leaving an unknown group": beat("nobody-s", "m", _LEAVES),
        "joining without a timeout": beat(g, "m", _JOINS, ["work"], []),
        "joining without topics": join(g, "m", topics=None),
        "joining without partitions": beat(g, "m", _JOINS, ["work"], None, timeout=60_000),
        "joining with partitions": beat(g, "m", _JOINS, ["work"], [(_NOBODY, [0])], timeout=60_000),
        "an empty instance": join(g, "m", instance_id=""),
        "an empty rack": join(g, "m", rack_id=""),
        "an unknown assignor": join(g, "m", server_assignor="sticky"),
        "an epoch below all": beat(g, "m", -3),
        "leaving for a while without an instance": beat(g, "m", _LEAVES_FOR_A_WHILE),
        "not a pattern": join(g, "m", topics=None, subscribed_topic_regex="("),
        "a pattern that looks around": join(g, "m", topics=None, subscribed_topic_regex="(?=a)a"),
        "no topics, and no pattern": join(g, "m", topics=None, subscribed_topic_regex=""),
    }.items():
        yield f"consumer heartbeat: {name}", first_answer(g, request)
    yield "consumer heartbeat: a member's id in version 0", lambda s: bool(s.ask(join("v0", "", version=0))["member_id"])


def one_group():
    """A group's life. Members are `a` and `b`; what they have is kept between the cases."""
    g = "consumers"
    members = {}

    def step(name, request, keep=True):
        """One heartbeat of a member, given what it knows; its answer without which partitions it is to have."""

        def run(side):
            ready(side, g)
            state = members.setdefault((id(side), name), [0, {}])
            answer = side.ask(request(*state))
            if keep and isinstance(answer, dict) and answer["error_code"] == 0:
                state[0] = answer["member_epoch"]
                if answer["assignment"] is not None:
                    topics = answer["assignment"]["topic_partitions"]
                    state[1] = {topic["topic_id"]: sorted(topic["partitions"]) for topic in topics}
            if isinstance(answer, dict) and answer.get("assignment") is not None:
                topics = answer["assignment"]["topic_partitions"]
                answer["assignment"] = str(sum(len(topic["partitions"]) for topic in topics))
            return answer

        return run

    def lives(epoch, owned):
        return beat(g, "a", epoch, owned=list(owned.items()))

    yield "consumer group: a joins", step("a", lambda epoch, owned: join(g, "a"))
    yield "consumer group: a joins again", step("a", lambda epoch, owned: join(g, "a"))
    yield "consumer group: a lives", step("a", lambda epoch, owned: beat(g, "a", epoch))
    yield "consumer group: a says what it has", step("a", lives)
    yield "consumer group: described", lambda s: seen(s.ask(describe(g)))
    yield "consumer group: described in version 0", lambda s: seen(s.ask(describe(g, version=0)))
    yield "consumer group: a later epoch", step("a", lambda epoch, owned: beat(g, "a", epoch + 1), keep=False)
    yield "consumer group: an unknown member", step("a", lambda epoch, owned: beat(g, "z", epoch), keep=False)
    yield "consumer group: an unknown member leaves", step("a", lambda epoch, owned: beat(g, "z", -1), keep=False)

    yield "consumer group: b joins", step("b", lambda epoch, owned: join(g, "b"))
    yield "consumer group: described, b waits", lambda s: counted(s, g)
    yield "consumer group: a is to give up some", step("a", lambda epoch, owned: beat(g, "a", epoch))
    yield "consumer group: described, a gives up", lambda s: counted(s, g)
    yield "consumer group: a has given them up", step("a", lives)
    yield "consumer group: b lives", step("b", lambda epoch, owned: beat(g, "b", epoch))
    yield "consumer group: described, both", lambda s: counted(s, g)

    def at(name, make):
        """A request in a member's epoch."""
        return lambda s: s.ask(make(members[(id(s), name)][0]))

    yield "consumer group: a commits", at("a", lambda epoch: commit(g, "a", epoch))
    yield "consumer group: a commits in an older epoch", at("a", lambda epoch: commit(g, "a", epoch - 1))
    yield "consumer group: a commits in a later epoch", at("a", lambda epoch: commit(g, "a", epoch + 1))
    yield "consumer group: a commits in version 8", at("a", lambda epoch: commit(g, "a", epoch, version=8))
    yield "consumer group: a stranger commits", at("a", lambda epoch: commit(g, "z", epoch))
    yield "consumer group: nobody commits", lambda s: s.ask(commit(g, "", -1))
    yield "consumer group: a fetches", at("a", lambda epoch: fetch_offsets(g, "a", epoch))
    yield "consumer group: a fetches in an older epoch", at("a", lambda epoch: fetch_offsets(g, "a", epoch - 1))
    yield "consumer group: a stranger fetches", at("a", lambda epoch: fetch_offsets(g, "z", epoch))
    yield "consumer group: nobody fetches", lambda s: s.ask(fetch_offsets(g, None, -1))
    yield "consumer group: offsets of its topic deleted", lambda s: s.ask(delete_offsets(g, "work"))
    yield "consumer group: offsets of another topic deleted", lambda s: s.ask(delete_offsets(g, "t"))

    yield "consumer group: described as a classic one", lambda s: s.ask(
        DescribeGroupsRequest(version=6, groups=[g], include_authorized_operations=False)
    )
    for kind in ("consumer", "classic"):
        yield f"consumer group: listed as {kind}", lambda s, kind=kind: [
            group
            for group in s.ask(ListGroupsRequest(version=5, states_filter=[], types_filter=[kind]))["groups"]
            if group["group_id"] == g
        ]
    yield "consumer group: deleted with members", lambda s: s.ask(DeleteGroupsRequest(version=2, groups_names=[g]))

    yield "consumer group: b leaves", step("b", lambda epoch, owned: beat(g, "b", _LEAVES))
    yield "consumer group: a has all again", lambda s: str(
        [sorted(map(len, owned.values())) for _, _, owned in settled(s, g, ("a", *members[(id(s), "a")]))]
    )
    yield "consumer group: a leaves", lambda s: s.ask(beat(g, "a", _LEAVES))
    yield "consumer group: described, empty", lambda s: counted(s, g)
    yield "consumer group: deleted", lambda s: s.ask(DeleteGroupsRequest(version=2, groups_names=[g]))
    yield "consumer group: described, gone", lambda s: seen(s.ask(describe(g, "", "never-there")))


def static_members():
    g = "static"
    epochs = {}

    def join_as(member, instance):
        def run(side):
            ready(side, g)
            answer = side.ask(join(g, member, instance_id=instance))
            epochs[id(side)] = answer["member_epoch"]
            if answer["assignment"] is not None:
                answer["assignment"] = str(sum(len(t["partitions"]) for t in answer["assignment"]["topic_partitions"]))
            return answer

        return run

    def left(member, epoch):
        return lambda s: s.ask(beat(g, member, epoch, instance_id="i"))

    yield "static member: joins", join_as("first", "i")
    yield "static member: its name is taken", lambda s: s.ask(join(g, "second", instance_id="i"))
    yield "static member: leaves for a while", left("first", _LEAVES_FOR_A_WHILE)
    yield "static member: described while away", lambda s: seen(s.ask(describe(g)))
    yield "static member: is back under another id", join_as("second", "i")
    yield "static member: its old id", lambda s: s.ask(beat(g, "first", epochs[id(s)], instance_id="i"))
    yield "static member: another instance leaves", lambda s: s.ask(
        beat(g, "second", _LEAVES_FOR_A_WHILE, instance_id="j")
    )
    yield "static member: leaves for good", left("second", _LEAVES)


def patterns():
    g = "patterns"

    def topics_of(pattern):
        """The topics that a member with the pattern is given in the end."""

        def run(side):
            ready(side, g)
            joined = side.ask(join(g, "m", topics=None, subscribed_topic_regex=pattern))
            assert joined["error_code"] == 0, joined
            deadline = time.monotonic() + _PATIENCE
            epoch, owned, found = joined["member_epoch"], {}, None
            # Kafka resolves patterns in the background: a member has no topics at first.
            while not found and time.monotonic() < deadline:
                [(_, epoch, owned)] = settled(side, g, ("m", epoch, owned))
                [described] = side.ask(describe(g))["groups"]
                [member] = described["members"]
                found = sorted(topic["topic_name"] for topic in member["assignment"]["topic_partitions"])
            side.ask(beat(g, "m", _LEAVES))
            return found

        return run

    for pattern in ("work", "w.*|empty", "[a-z]{4}", r"\Qa.b\E", "(?i)WORK", r"a\.b|compacted"):
        yield f"pattern {pattern!r}", topics_of(pattern)


def configurations():
    g = "configured-group"
    both = ["consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"]

    def described(side):
        [result] = side.ask(describe_configs(g, *both))["results"]
        result["configs"] = {config.pop("name"): config for config in result["configs"]}
        return result

    def interval(side):
        """What a member is told, once it is what it is set to."""
        ready(side, g)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            answer = side.ask(join(g, "m"))
            if answer["heartbeat_interval_ms"] == 6000:
                break
        side.ask(beat(g, "m", _LEAVES))
        return answer["heartbeat_interval_ms"]

    yield "group's configuration", described
    yield "group's configuration: of no group", lambda s: s.ask(describe_configs(""))
    for key, value in [
        ("consumer.session.timeout.ms", "1000"),
        ("consumer.session.timeout.ms", "60001"),
        ("consumer.session.timeout.ms", "soon"),
        ("consumer.heartbeat.interval.ms", "4999"),
        ("consumer.heartbeat.interval.ms", "15001"),
        ("no.such.key", "1"),
        ("consumer.heartbeat.interval.ms", "6000"),
        ("consumer.session.timeout.ms", "50000"),
    ]:
        yield f"group's configuration: {key}={value}", lambda s, k=key, v=value: s.ask(alter(g, k, v))
    yield "group's configuration: set for no group", lambda s: s.ask(alter("", both[0], "50000"))
    yield "group's configuration: set", lambda s: (s.ask_until(
        describe_configs(g, both[0]),
        lambda answer: answer["results"][0]["configs"][0]["value"] == "50000",
    ), described(s))[1]
    yield "group's configuration: a member is told", interval
    yield "group's configuration: taken back", lambda s: s.ask(alter(g, both[0], None))


def cases():
    yield from refusals()
    yield from one_group()
    yield from static_members()
    yield from patterns()
    yield from configurations()

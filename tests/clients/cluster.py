"""The cluster under test, and topics on it."""

import functools
import itertools
import os
import time
import unittest

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

BOOTSTRAP = os.environ["OTTLA_BOOTSTRAP"]
# Seconds until something counts as never coming. Generous: the machine may have more to do than this.
PATIENCE = 180.0
# A `log_level` for librdkafka, which tells of every broken connection.
QUIET = 0
# Seconds that an administrative request gives the cluster to carry it out.
_OPERATION = 30.0
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# The longest value of a record, uncompressed and with nothing else in it, that a topic takes by default:
# max.message.bytes (1,048,588) less 61 bytes of the batch's header, 3 of the record's length, 3 of the
# value's, and one each for attributes, timestamp, offset, no key, and no headers.
LARGEST_VALUE = 1_048_588 - 61 - 3 - 3 - 5

_numbers = itertools.count()


@functools.cache
def admin():
    """The one admin client: its calls end when it does."""
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def unused_name():
    """A topic's name that no other test has."""
    return f"test-{os.getpid()}-{time.time_ns()}-{next(_numbers)}"


def ask(request):
    """Makes an administrative request (a function that returns its future) and returns the result. One whose time was
    up, as in an election of controllers, is made again: what became of it nobody knows."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return request().result(PATIENCE)
        except KafkaException as failure:
            timed_out = failure.args[0].code() in (KafkaError.REQUEST_TIMED_OUT, KafkaError._TIMED_OUT)
            if not timed_out or time.monotonic() > deadline:
                raise


def carry_out(request, done):
    """The same for a request that is refused with the code `done` once it has been carried out."""
    try:
        ask(request)
    except KafkaException as refused:
        if refused.args[0].code() != done:
            raise


def _once_every_broker_is_back(request):
    """Makes a request, again where brokers are missing for it: one that was killed, or that the machine gave no time for
    as long as its session lasts."""

    def is_carried_out():
        try:
            request()
            return True
        except KafkaException as refused:
            if refused.args[0].code() != KafkaError.INVALID_REPLICATION_FACTOR:
                raise
            return False

    wait_until(is_carried_out, "too few brokers are there")


def add_partitions(name, count, client=None):
    """Makes a topic have `count` partitions, which are more than it has."""
    client = admin() if client is None else client

    def add():
        return client.create_partitions([NewPartitions(name, count)], operation_timeout=_OPERATION)[name]

    _once_every_broker_is_back(lambda: carry_out(add, KafkaError.INVALID_PARTITIONS))


def create_topic(name=None, partitions=1, replicas=3, config=None, client=None):
    """Creates a topic and returns its name. One that is there already was created by an earlier try of the same
    request, or by a producer of it: their requests for metadata create what is not there."""
    name = name or unused_name()
    # Not `client or admin()`: a client without events in its queue counts as false.
    client = admin() if client is None else client

    def create():
        topic = NewTopic(name, partitions, replicas, config=config or {})
        return client.create_topics([topic], operation_timeout=_OPERATION)[name]

    _once_every_broker_is_back(lambda: carry_out(create, KafkaError.TOPIC_ALREADY_EXISTS))
    return name


def delete_topic(name, client=None):
    """Deletes a topic that is there."""
    client = admin() if client is None else client
    carry_out(
        lambda: client.delete_topics([name], operation_timeout=_OPERATION)[name],
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    )


def configure_group(group, key, value, client=None):
    """Sets a key of a group; returns when a broker that is asked says so."""
    client = admin() if client is None else client
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    wish = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
    ask(lambda: client.incremental_alter_configs([wish])[wish])
    asked = ConfigResource(ResourceType.GROUP, group)

    def is_set():
        return ask(lambda: client.describe_configs([asked])[asked])[key].value == value

    wait_until(is_set, f"{key} of {group} is not set")


def recreate_topic(name):
    delete_topic(name)
    create_topic(name)


class NeverHappened(AssertionError):
    """A condition was waited for in vain."""


def wait_until(condition, what, progress=lambda: None):
    """Waits for a condition, which is called again and again; returns what it returned. `what` may be a function. The time
    begins anew whenever `progress` returns something else."""
    state, deadline = progress(), time.monotonic() + PATIENCE
    while not (result := condition()):
        if (now := progress()) != state:
            state, deadline = now, time.monotonic() + PATIENCE
        if time.monotonic() > deadline:
            raise NeverHappened(what() if callable(what) else what)
        time.sleep(0.05)
    return result


class WaitingTest(unittest.TestCase):
    """A test that waits for conditions, never for a time."""

    def wait_until(self, condition, what):
        """Waits for a condition, which is called again and again."""
        return wait_until(condition, what)


class ClusterTest(WaitingTest):
    """A test against the shared cluster."""

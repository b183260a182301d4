"""The cluster under test, and topics on it."""

import functools
import itertools
import os
import time
import unittest

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = os.environ["OTTLA_BOOTSTRAP"]
# Generous: the machine may have more to do than this.
PATIENCE = 30.0
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


def create_topic(name=None, partitions=1, replicas=3, config=None):
    """Creates a topic and returns its name."""
    name = name or unused_name()
    topic = NewTopic(name, partitions, replicas, config=config or {})
    admin().create_topics([topic], operation_timeout=PATIENCE)[name].result(PATIENCE)
    return name


def delete_topic(name):
    admin().delete_topics([name], operation_timeout=PATIENCE)[name].result(PATIENCE)


def recreate_topic(name):
    """Deletes a topic and creates it again, or finds that a producer of it was faster: their requests for metadata
    create what is not there."""
    delete_topic(name)
    try:
        create_topic(name)
    except KafkaException as refused:
        if refused.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


class WaitingTest(unittest.TestCase):
    """A test that waits for conditions, never for a time."""

    def wait_until(self, condition, what):
        """Waits for a condition, which is called again and again."""
        deadline = time.monotonic() + PATIENCE
        while not (result := condition()):
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)
        return result


class ClusterTest(WaitingTest):
    """A test against the shared cluster."""

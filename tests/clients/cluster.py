"""The cluster under test, and topics on it."""

import functools
import itertools
import os
import time
import unittest

from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = os.environ["OTTLA_BOOTSTRAP"]
# Generous: the machine may have more to do than this.
PATIENCE = 30.0

_numbers = itertools.count()


@functools.cache
def admin():
    """The one admin client: its calls end when it does."""
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def create_topic(name=None, partitions=1, replicas=3, config=None):
    """Creates a topic and returns its name, one that no other test has."""
    name = name or f"test-{os.getpid()}-{time.time_ns()}-{next(_numbers)}"
    topic = NewTopic(name, partitions, replicas, config=config or {})
    admin().create_topics([topic], operation_timeout=PATIENCE)[name].result(PATIENCE)
    return name


def delete_topic(name):
    admin().delete_topics([name], operation_timeout=PATIENCE)[name].result(PATIENCE)


class ClusterTest(unittest.TestCase):
    def wait_until(self, condition, what):
        """Waits for a condition, which is called again and again."""
        deadline = time.monotonic() + PATIENCE
        while not (result := condition()):
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)
        return result

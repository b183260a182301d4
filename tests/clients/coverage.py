#!/usr/bin/env python3
"""Which stock client exercises which API: counted by the brokers, not guessed.

    tests/clients/run.sh --script tests/clients/coverage.py

Runs each client's suite against a fresh cluster and reads the request counters from every broker's /metrics.
Prints a table for docs/evidence/clients.md; exits 1 where an API in docs/protocol-support.md has no client.
"""

import collections
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

from own_cluster import ROOT, OwnCluster

# In test_groups librdkafka has one guest.
GUEST = "test_groups.GroupsTest.test_kafka_python"


def tests_of_groups():
    """The names of librdkafka's tests of groups."""
    os.environ.setdefault("OTTLA_BOOTSTRAP", "")
    from test_groups import GroupsTest

    names = unittest.TestLoader().getTestCaseNames(GroupsTest)
    return [name for name in (f"test_groups.GroupsTest.{name}" for name in names) if name != GUEST]


SUITES = {
    "librdkafka": ["test_librdkafka", "test_admin", *tests_of_groups()],
    "kafka-python": ["test_kafka_python", GUEST],
    "kcat": ["test_kcat"],
    "Java tools": ["test_java", "test_java_groups"],
}
# These have clusters of their own.
KILLED = "leader killed: librdkafka, Java"
CONSUMER_PROTOCOL = "KIP-848: librdkafka, Java"


def advertised():
    """The APIs in the generated documentation."""
    table = (ROOT / "docs/protocol-support.md").read_text()
    return re.findall(r"^\| (\w+) \| \d+ \|", table, re.MULTILINE)


def under_failover():
    """The requests of the suite that kills leaders, as the brokers that live at its end count them."""
    from test_leader_killed import LeaderKilledTest

    class Counted(LeaderKilledTest):
        def test_a_leader_killed_over_and_over(self):
            super().test_a_leader_killed_over_and_over()
            Counted.found = self.cluster.requests()

    result = unittest.TextTestRunner(stream=sys.stderr).run(Counted("test_a_leader_killed_over_and_over"))
    assert result.wasSuccessful()
    return Counted.found


def in_the_consumer_protocol():
    """The requests of the suites whose members speak the protocol of KIP-848."""
    from test_groups_848 import ConsumerProtocolTest
    from test_java_groups_848 import JavaConsumerProtocolTest

    found = collections.Counter()
    for suite in (ConsumerProtocolTest, JavaConsumerProtocolTest):

        class Counted(suite):
            @classmethod
            def tearDownClass(cls):
                found.update(cls.cluster.requests())
                super().tearDownClass()

        tests = unittest.defaultTestLoader.loadTestsFromTestCase(Counted)
        assert unittest.TextTestRunner(stream=sys.stderr).run(tests).wasSuccessful()
    return found


def main():
    columns = {}
    for client, suites in SUITES.items():
        cluster = OwnCluster()
        try:
            cluster.start()
            subprocess.run(
                [sys.executable, "-m", "unittest", "-q", *suites],
                cwd=Path(__file__).parent,
                env=dict(os.environ, OTTLA_BOOTSTRAP=cluster.bootstrap),
                check=True,
            )
            columns[client] = cluster.requests()
        finally:
            cluster.close()
    columns[KILLED] = under_failover()
    columns[CONSUMER_PROTOCOL] = in_the_consumer_protocol()
    print(f"| API | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    uncovered = []
    for api in advertised():
        row = [column[api] for column in columns.values()]
        if not any(row):
            uncovered.append(api)
        print(f"| {api} | {' | '.join(f'{count:,}' if count else '' for count in row)} |")
    if uncovered:
        print(f"\nno stock client: {', '.join(uncovered)}")
    return 1 if uncovered else 0


if __name__ == "__main__":
    sys.exit(main())

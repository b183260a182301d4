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

# Of each client: its suites, and which rows of the groups' scenarios are its.
SUITES = {
    "librdkafka": (["test_librdkafka", "test_admin", "test_groups"], "(come and go|commits), confluent"),
    "kafka-python": (["test_kafka_python"], "(come and go|commits), kafka-python"),
    "aiokafka": (["test_aiokafka"], "(come and go|commits), aiokafka"),
    "kcat": (["test_kcat"], None),
    "Java tools": (["test_java", "test_java_groups"], "(come and go|commits), java|kafka-consumer-groups"),
}
GROUPS = "test_group_scenarios.UndisturbedTest"
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
    for client, (suites, rows) in SUITES.items():
        cluster = OwnCluster()
        try:
            cluster.start()
            choice = {"OTTLA_BOOTSTRAP": cluster.bootstrap, "CLIENTS_FULL": "1", "CLIENTS_ONLY": rows or ""}
            subprocess.run(
                [sys.executable, "-m", "unittest", "-q", *suites, *([GROUPS] if rows else [])],
                cwd=Path(__file__).parent,
                env=os.environ | choice,
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

#!/usr/bin/env python3
"""Which stock client exercises which API: counted by the brokers, not guessed.

    tests/clients/run.sh --script tests/clients/coverage.py

Runs each client's suite against a fresh cluster and reads the request counters from every broker's /metrics.
Prints a table for docs/evidence/clients.md; exits 1 where an API in docs/protocol-support.md has no client.
"""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

from own_cluster import GROUP_TIMES, ROOT, OwnCluster

# Of each client: its suites, and which rows of the groups' scenarios are its (assignors have no blanks in their names).
SUITES = {
    "librdkafka": (["test_librdkafka", "test_admin", "test_groups"], r"(come and go|commits), confluent \S+,"),
    "kafka-python": (["test_kafka_python"], "(come and go|commits), kafka-python"),
    "aiokafka": (["test_aiokafka"], "(come and go|commits), aiokafka"),
    "kcat": (["test_kcat"], None),
    "Java tools": (["test_java", "test_java_groups"], r"(come and go|commits), java( console)? \S+,|kafka-consumer-groups, \w+ \S+,"),
    "KIP-848: librdkafka, Java": (["test_groups_848"], "(come and go|commits|kafka-consumer-groups), .*KIP-848"),
}
GROUPS = "test_group_scenarios.UndisturbedTest"
# It has a cluster of its own.
KILLED = "leader killed: librdkafka, Java"


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


def main():
    columns = {}
    for client, (suites, rows) in SUITES.items():
        cluster = OwnCluster(settings=GROUP_TIMES)
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

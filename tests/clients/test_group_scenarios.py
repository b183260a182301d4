"""Every scenario of groups, with stock clients, with the coordinator's broker killed at a random moment, and undisturbed.

The quick form takes some rows of the table; `tests/clients/run.sh --full` takes them all. CLIENTS_SEED repeats a run's
random choices (it is printed); CLIENTS_ONLY is a regular expression for the rows that are wanted.
"""

import os
import random
import re
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from cluster import BOOTSTRAP
from coordinator_killer import CoordinatorKiller
from group_administration import ADMINISTRATION
from group_crowd import Crowd
from group_run import ClusterUnderTest, Run
from group_scenarios import Row, every_row, one_of_each, quick_rows
from members import CONFLUENT, kinds

FULL = bool(os.environ.get("CLIENTS_FULL"))
SEED = int(os.environ.get("CLIENTS_SEED") or random.randrange(1_000_000))
ONLY = re.compile(os.environ.get("CLIENTS_ONLY") or "")
ADMINISTERED = Row(ADMINISTRATION, tuple(kinds(CONFLUENT)[:1]), "sync")
GROUPS_AT_ONCE = 1000 if FULL else 100
# How many groups live at the same time.
_SIDE_BY_SIDE = 12


def say(line):
    print(line, flush=True)


class LifeTest(unittest.TestCase):
    """Lets groups live side by side."""

    def live(self, runs, killer=None):
        """Carries out all of them, and fails with what was wrong in any."""
        runs = [run for run in runs if ONLY.search(str(run))]
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            outcomes = list(pool.map(lambda run: self._live(run, killer), runs))
        failures = [f"{name}: {problem}" for name, problems in outcomes for problem in problems[:10]]
        failures += killer.failures if killer else []
        if failures and killer:
            say("\n".join(killer.complaints()))
        self.assertEqual(failures, [], "\n" + "\n".join(failures))

    @staticmethod
    def _live(run, killer):
        name, began = str(run).removesuffix(": begins"), time.monotonic()
        if killer:
            killer.watch(run)
        try:
            problems = run.go()
        finally:
            if killer:
                killer.forget(run)
        if problems:
            say("\n".join(problems[:20]))
        state = f"{len(problems)} PROBLEMS" if problems else "ok"
        kills = f"; killed in: {', '.join(run.kills)}" if run.kills else ""
        say(f"{state:>4} {time.monotonic() - began:5.1f} s  {name}: {run.figures()}{kills}")
        return name, problems


class CoordinatorKilledTest(LifeTest):
    def test_every_scenario(self):
        say(f"\nCLIENTS_SEED={SEED}")
        with CoordinatorKiller(SEED, log=say) as killer:
            place = killer.cluster, killer, SEED
            rows = [row for row in (every_row() if FULL else quick_rows()) if row.bears_kills]
            rows.append(ADMINISTERED)
            # Those that last longest begin first.
            self.live([Crowd(GROUPS_AT_ONCE, *place), *(Run(row, *place) for row in reversed(rows))], killer)


class UndisturbedTest(LifeTest):
    """Nobody dies who does not belong to the scenario: what is told exactly once is told exactly once."""

    def test_on_the_shared_cluster(self):
        rows = every_row() if FULL else one_of_each()
        if FULL:
            rows.append(ADMINISTERED)
        cluster = ClusterUnderTest(BOOTSTRAP)
        self.live([Run(row, cluster, None, SEED) for row in rows])

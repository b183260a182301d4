"""Every scenario of groups, with stock clients, with the coordinator's broker killed at a random moment, and undisturbed.

The quick form takes some rows of the table; `tests/clients/run.sh --full` takes them all. CLIENTS_SEED repeats a run's
random choices (it is printed); CLIENTS_ONLY is a regular expression for the rows that are wanted; CLIENTS_LOGS is a folder
for everything that members tell, and for the nodes' logs should a row fail.
"""

import os
import random
import re
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from cluster import BOOTSTRAP
from coordinator_killer import CoordinatorKiller
from group_administration import administered
from group_crowd import Crowd
from group_run import ClusterUnderTest, Run
from group_scenarios import every_row, quick_rows, quick_rows_with_kills

FULL = bool(os.environ.get("CLIENTS_FULL"))
SEED = int(os.environ.get("CLIENTS_SEED") or random.randrange(1_000_000))
ONLY = re.compile(os.environ.get("CLIENTS_ONLY") or "")
_LOGS = os.environ.get("CLIENTS_LOGS")
GROUPS_AT_ONCE = 1000 if FULL else 100
# How many groups live at the same time; in the full form most have members that are Java machines of their own.
_SIDE_BY_SIDE = 4 if FULL else 6


def say(line):
    print(line, flush=True)


class LifeTest(unittest.TestCase):
    """Lets groups live side by side."""

    def live(self, rows, make, killer=None):
        """Carries out all of them, and fails with what was wrong in any. `make` makes a run of a row.

        The quick form gives a group that stood still, without a broken promise, two more chances: a machine that has much
        else to do takes the quorum from the controllers and the sessions from the members.
        """
        rows = [row for row in rows if ONLY.search(str(row))]
        if not rows:
            return
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            outcomes = list(pool.map(lambda row: self._live(row, make, killer), rows))
        say(f"{sum(not problems for problems in outcomes)} of {len(rows)} rows held")
        failures = [f"{row}: {problem}" for row, problems in zip(rows, outcomes) for problem in problems[:10]]
        if failures and killer:
            say("\n".join(killer.complaints()))
            if _LOGS:
                killer.keep_logs(_LOGS)
        self.assertEqual(failures, [], "\n" + "\n".join(failures))

    def _live(self, row, make, killer, chances=0 if FULL else 2):
        run, began = make(row), time.monotonic()
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
        say(f"{state:>4} {time.monotonic() - began:5.1f} s  {row}: {run.figures()}{kills}")
        if run.is_stalled and chances:
            say(f"another chance: {row}")
            return self._live(row, make, killer, chances=chances - 1)
        return problems


class CoordinatorKilledTest(LifeTest):
    def test_every_scenario(self):
        say(f"\nCLIENTS_SEED={SEED}")
        with CoordinatorKiller(SEED, log=say) as killer:
            place = killer.cluster, killer, SEED
            rows = [row for row in (every_row() if FULL else quick_rows_with_kills()) if row.bears_kills]
            rows += administered() if FULL else administered()[:1]
            crowd = f"{GROUPS_AT_ONCE} groups at once"

            def make(row):
                return Crowd(GROUPS_AT_ONCE, *place) if row is crowd else Run(row, *place)

            # Those that last longest begin first. A thousand groups have the machine to themselves.
            rows.reverse()
            for some in [rows, [crowd]] if FULL else [[crowd, *rows]]:
                with self.subTest(rows=len(some)):
                    self.live(some, make, killer)


class UndisturbedTest(LifeTest):
    """Nobody dies who does not belong to the scenario: what is told exactly once is told exactly once."""

    def test_on_the_shared_cluster(self):
        rows = [*every_row(), *administered()] if FULL else quick_rows()
        cluster = ClusterUnderTest(BOOTSTRAP)
        self.live(rows, lambda row: Run(row, cluster, None, SEED))

"""Many groups at once, one consumer each: all are served, and a coordinator's death loses none of them."""

import random

from confluent_kafka import KafkaException

import group_run
from cluster import NeverHappened, wait_until
from group_administration import GroupsTool, expect, expect_in_the_end
from guarantees import History
from members import AIOKAFKA, Member, kinds

_RECORDS = 5
_SESSION_TIMEOUT_MS = 45_000


class Crowd:
    """As many groups as asked for, in one process; it can stand where a `group_run.Run` does."""

    def __init__(self, count, cluster, killer, seed):
        self.cluster, self._killer = cluster, killer
        self.name = f"{count} groups at once, {AIOKAFKA}, sync"
        self.chance = random.Random(f"{seed} {self.name}")
        self.step = "begins"
        self.kills = []
        # Something was waited for in vain, and no promise broken.
        self.is_stalled = False
        # The one that is asked for the coordinator that dies. The others have other coordinators, some of them this one.
        self.group = killer.group_name(self.name) if killer else group_run.name_of(self.name)
        [kind] = kinds(AIOKAFKA)[:1]
        names = [self.group, *(f"{self.group}-{number}" for number in range(count - 1))]
        self.histories = {name: History(may_start_over=killer is not None and kind.starts_over) for name in names}
        self._place = (f"{self.group}-topic", 0)
        self._member, self._sent = None, 0

    def __str__(self):
        return f"{self.name}: {self.step}"

    @property
    def can_be_struck(self):
        return self.histories[self.group].has_begun()

    def go(self):
        """Returns what was wrong, in words."""
        steps = [("all join", self._join), ("all read on", self._read), ("all are described", self._describe)]
        moment = self.chance.randrange(len(steps))
        try:
            for number, (self.step, act) in enumerate(steps):
                if self._killer and number == moment:
                    self._killer.wait_until_ready(self)
                    self._killer.strike_soon(self, self.chance.uniform(0, 3))
                act()
                if self._killer and number == moment:
                    wait_until(lambda: self.kills, "nobody killed the coordinator")
            self.step = "end"
            self._read()
            expect(self._member.stop(), True, "ended in order")
            self._member = None
            return self._judge()
        except (AssertionError, KafkaException) as failure:
            self.is_stalled = isinstance(failure, NeverHappened) and not self._judge(is_over=False)
            return [f"{type(failure).__name__}: {failure}", str(self._member), *self._judge()]
        finally:
            self.step = "over"
            if self._member:
                self._member.kill()

    def figures(self):
        """What happened, for a line of evidence."""
        found = [history.summary() for history in self.histories.values()]
        each, commits = found[0]["records"], sum(one["commits"] for one in found)
        return f"{each} records to each, {commits} commits, {sum(one['refused'] for one in found)} refused"

    def _join(self):
        topic, _ = self._place
        self.cluster.create_topic(topic, 1)
        [kind] = kinds(AIOKAFKA)[:1]
        place = self.cluster.bootstrap, [topic]
        self._member = Member("crowd", kind, self.histories, *place, "sync", "earliest", _SESSION_TIMEOUT_MS)
        self._read()

    def _read(self):
        """Some records come, and every group reads and commits them."""
        flow = group_run.Flow(self.cluster.bootstrap, self.histories.values(), [self._place], first=self._sent)
        wait_until(lambda: flow.sent >= self._sent + _RECORDS, "nothing is produced")
        flow.stop()
        self._sent = flow.sent
        expect(flow.errors, [], "produced")
        # They share a process: as long as one commits now and then it is not too slow.
        wait_until(self._is_up_to_date, self._how_far, progress=lambda: sum(h.commits for h in self.histories.values()))

    def _is_up_to_date(self):
        return all(not h.undelivered() and h.acknowledged() == h.ends() for h in self.histories.values())

    def _how_far(self):
        histories = self.histories.values()
        waiting = sum(bool(history.undelivered()) for history in histories)
        uncommitted = sum(history.acknowledged() != history.ends() for history in histories)
        return f"of {len(histories)} groups {waiting} wait for records, {uncommitted} have not committed"

    def _describe(self):
        """The tool asks for all of them at once, and finds what they have committed."""
        tool = GroupsTool(self.cluster.bootstrap)
        end = next(iter(self.histories.values())).ends()[self._place]

        def look():
            rows = tool.table("--describe", "--all-groups", "--offsets")
            found = {row["GROUP"]: (row["CURRENT-OFFSET"], row["LAG"]) for row in rows if row["GROUP"] in self.histories}
            expect(found, dict.fromkeys(self.histories, (str(end), "0")), "described")

        expect_in_the_end(self, look)

    def _judge(self, is_over=True):
        return [problem for history in self.histories.values() for problem in history.violations(True, is_over)]

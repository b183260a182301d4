"""The checker of the groups' promises notices when one is broken, and nothing else."""

import unittest

from guarantees import History

PLACE = ("topic", 0)


def read(history, member, *offsets):
    for offset in offsets:
        history.delivered(member, str(offset), PLACE, offset)


class HistoryTest(unittest.TestCase):
    def setUp(self):
        self.history = History()
        for offset in range(3):
            self.history.produced(str(offset), PLACE, offset)

    def judged(self, exactly_once=True):
        return self.history.violations(exactly_once)

    def test_a_good_one(self):
        read(self.history, "a", 0, 1, 2)
        self.history.committed("a", {PLACE: 3}, acknowledged=True)
        self.history.observed(self.history.floor(), {PLACE: 3})
        self.assertEqual(self.judged(), [])
        self.assertEqual(self.history.seen(), self.history.ends())

    def test_a_record_that_nobody_got(self):
        read(self.history, "a", 0, 2)
        self.assertEqual(self.history.undelivered(), {"1"})
        self.assertEqual(self.judged(), ["record 1 at (('topic', 0), 1) was never delivered"])

    def test_a_record_delivered_twice(self):
        read(self.history, "a", 0, 1)
        self.history.committed("a", {PLACE: 1}, acknowledged=True)
        self.history.revoked("a", [PLACE])
        read(self.history, "b", 1, 2)
        self.assertIn("record 1 at (('topic', 0), 1) was delivered more than once", self.judged()[0])
        # A member that was killed had no time to commit.
        self.assertEqual(self.judged(exactly_once=False), [])

    def test_a_record_delivered_twice_after_a_refusal(self):
        read(self.history, "a", 0, 1)
        self.history.committed("a", {PLACE: 2}, acknowledged=False)
        read(self.history, "b", 0, 1, 2)
        self.history.committed("b", {PLACE: 3}, acknowledged=True)
        self.assertEqual(self.judged(), [])

    def test_a_refusal_that_was_made_good(self):
        read(self.history, "a", 0, 1, 2)
        self.history.committed("a", {PLACE: 3}, acknowledged=False)
        self.history.committed("a", {PLACE: 3}, acknowledged=True)
        read(self.history, "b", 2)
        self.assertIn("record 2 at (('topic', 0), 2) was delivered more than once", self.judged()[0])

    def test_a_record_finished_twice(self):
        for member in ("a", "b"):
            read(self.history, member, 0, 1, 2)
            self.history.committed(member, {PLACE: 3}, acknowledged=True)
        self.assertEqual(len(self.judged(exactly_once=False)), 3)
        self.assertIn("was finished more than once: a (acknowledged), b (acknowledged)", self.judged()[0])

    def test_a_commit_says_nothing_of_what_was_read_before_the_partition_was_lost(self):
        read(self.history, "a", 0, 1)
        self.history.revoked("a", [PLACE])
        read(self.history, "b", 0, 1)
        self.history.committed("b", {PLACE: 2}, acknowledged=True)
        self.history.revoked("b", [PLACE])
        self.history.assigned("a", [PLACE])
        read(self.history, "a", 2)
        self.history.committed("a", {PLACE: 3}, acknowledged=True)
        self.assertEqual(self.judged(exactly_once=False), [])

    def test_a_committed_offset_that_is_lost_or_moves_back(self):
        read(self.history, "a", 0, 1, 2)
        self.history.committed("a", {PLACE: 3}, acknowledged=True)
        floor = self.history.floor()
        self.history.observed(floor, {PLACE: 2})
        self.history.observed(floor, {PLACE: -1})
        self.assertEqual(
            self.judged(),
            [
                "('topic', 0): committed was 3, then the coordinator said 2",
                "('topic', 0): committed was 3, then the coordinator said nothing",
            ],
        )

    def test_an_offset_that_only_the_coordinator_named_is_committed_too(self):
        read(self.history, "a", 0, 1, 2)
        self.history.observed(self.history.floor(), {PLACE: 3})
        self.history.observed(self.history.floor(), {PLACE: 1})
        self.assertEqual(len(self.judged()), 1)

    def test_a_commit_that_was_answered_after_the_question(self):
        read(self.history, "a", 0, 1, 2)
        floor = self.history.floor()
        self.history.committed("a", {PLACE: 3}, acknowledged=True)
        self.history.observed(floor, {PLACE: -1})
        self.assertEqual(self.judged(), [])

    def test_the_offsets_of_a_deleted_topic(self):
        read(self.history, "a", 0, 1, 2)
        self.history.committed("a", {PLACE: 3}, acknowledged=True)
        floor = self.history.floor()
        self.history.forget("topic")
        self.history.observed(floor, {PLACE: -1})
        self.assertEqual(self.judged(), [])

    def test_a_client_that_starts_over_by_itself(self):
        self.history = History(may_start_over=True)
        for offset in range(3):
            self.history.produced(str(offset), PLACE, offset)
        for member in ("a", "b"):
            read(self.history, member, 0, 1, 2)
            self.history.committed(member, {PLACE: 3}, acknowledged=True)
        self.history.observed(self.history.floor(), {PLACE: 1})
        self.assertEqual(self.judged(), [])
        self.history.observed(self.history.floor(), {PLACE: -1})
        self.assertEqual(len(self.judged()), 1)

    def test_what_a_member_should_not_get_and_what_it_need_not_get(self):
        self.history.produced("old", PLACE, 3, unwanted=True)
        self.history.produced("between", PLACE, 4, optional=True)
        read(self.history, "a", 0, 1, 2)
        self.assertEqual(self.judged(), [])
        self.history.delivered("a", "old", PLACE, 3)
        self.history.delivered("a", "foreign", PLACE, 9)
        self.assertEqual(
            self.judged(),
            [
                "record foreign was delivered and never produced",
                "record old at (('topic', 0), 3) was delivered to a, behind its start",
            ],
        )


if __name__ == "__main__":
    unittest.main()

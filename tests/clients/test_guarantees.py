"""The checker of the groups' promises notices when one is broken, and nothing else; a member tells it what it must know."""

import contextlib
import io
import json
import unittest

from guarantees import History
from member_account import Account

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

    def commit_backwards(self):
        """Of "a", who must give the place away: it has committed 3, and the one to 1 takes effect after that."""
        self.history = History(may_commit_backwards=True)
        for offset in range(5):
            self.history.produced(str(offset), PLACE, offset)
        read(self.history, "a", 0, 1, 2)
        self.history.committed("a", {PLACE: 3}, acknowledged=True)
        self.history.revoked("a", [PLACE])
        self.history.observed(self.history.floor(), {PLACE: 1})
        self.finish("b", 1, 2)
        self.history.observed(self.history.floor(), {PLACE: 2})
        self.finish("b", 2, 5)
        self.history.observed(self.history.floor(), {PLACE: 5})

    def finish(self, member, start, end):
        read(self.history, member, *range(start, end))
        self.history.committed(member, {PLACE: end}, acknowledged=True)

    def test_a_commit_backwards_that_was_overtaken(self):
        self.commit_backwards()
        # Its answer is served late.
        self.history.overtaken(PLACE, 1, 3)
        self.assertEqual(self.judged(), [])
        self.assertEqual(self.history.summary()["excused"], 2)

    def test_a_commit_backwards_that_was_not_overtaken(self):
        self.commit_backwards()
        broken = [
            "('topic', 0): committed was 3, then the coordinator said 1",
            "('topic', 0): committed was 3, then the coordinator said 2",
            "record 1 at (('topic', 0), 1) was finished more than once: a (acknowledged), b (acknowledged)",
            "record 2 at (('topic', 0), 2) was finished more than once: a (acknowledged), b (acknowledged)",
        ]
        self.assertEqual(self.judged(), broken)
        # What others excuse: another place, and a place further on.
        self.history.overtaken(("topic", 1), 1, 3)
        self.history.overtaken(PLACE, 3, 5)
        self.assertEqual(self.judged(), broken)

    def test_what_one_that_was_overtaken_does_not_excuse(self):
        self.commit_backwards()
        self.history.overtaken(PLACE, 2, 3)
        self.assertEqual(len(self.judged()), 2, "it goes back to 2, not to 1, and record 1 is not between")
        self.history.overtaken(PLACE, 1, 3)
        self.assertEqual(self.judged(), [])
        for offset in (0, -1):
            self.history.observed({PLACE: 3}, {PLACE: offset})
        self.history.observed({PLACE: 5}, {PLACE: 1})
        self.assertEqual(len(self.judged()), 3, "further back, lost, and from further on")

    def test_records_between_are_finished_once_more_and_not_twice(self):
        self.commit_backwards()
        self.history.overtaken(PLACE, 1, 3)
        self.history.revoked("b", [PLACE])
        self.finish("c", 1, 3)
        self.assertEqual(len(self.judged(exactly_once=False)), 2)

    def test_nothing_is_overtaken_where_the_client_does_not_commit_backwards(self):
        self.finish("a", 0, 3)
        self.history.overtaken(PLACE, 1, 3)
        self.finish("b", 1, 3)
        self.history.observed({PLACE: 3}, {PLACE: 1})
        self.assertEqual(len(self.judged()), 3)

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


class AccountTest(unittest.TestCase):
    def setUp(self):
        self.account = Account("group", "async")

    def told(self, *events):
        """Carries out the events, each a method's name and what it is given; returns what was told of commits."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            for name, *given in events:
                getattr(self.account, name)(*given)
        told = [json.loads(line) for line in out.getvalue().splitlines()]
        return [
            (event["name"], part["offset"], *filter(None, [part.get("overtaken_by")]))
            for event in told
            for part in event.get("offsets", ())
        ]

    def test_an_answer_after_that_to_a_later_commit(self):
        self.told(("read", *PLACE, 0, b"0"), ("to_ask",), ("read", *PLACE, 1, b"1"))
        later, late = ("committed", {PLACE: 2}), ("committed", {PLACE: 1})
        self.assertEqual(
            self.told(later, ("revoked", [PLACE]), late, late),
            [("offsets_committed", 2), ("commit_overtaken", 1, 2), ("offsets_committed", 1)],
        )

    def test_after_a_late_answer_the_next_may_be_asked_for(self):
        self.told(("read", *PLACE, 0, b"0"), ("to_ask",), ("read", *PLACE, 1, b"1"), ("committed", {PLACE: 2}))
        self.told(("read", *PLACE, 2, b"2"))
        self.assertEqual(self.account.to_ask(), {}, "one at a time")
        self.told(("committed", {PLACE: 1}))
        self.assertEqual(self.account.to_ask(), {PLACE: 3})

    def test_answers_in_order(self):
        self.told(("read", *PLACE, 0, b"0"), ("to_ask",), ("read", *PLACE, 1, b"1"))
        self.assertEqual(
            self.told(("committed", {PLACE: 1}), ("committed", {PLACE: 2}), ("committed", {PLACE: 1})),
            [("offsets_committed", 1), ("offsets_committed", 2), ("offsets_committed", 1)],
        )

    def test_a_late_refusal_excuses_nothing(self):
        self.told(("read", *PLACE, 0, b"0"), ("to_ask",), ("read", *PLACE, 1, b"1"), ("committed", {PLACE: 2}))
        self.assertEqual(
            self.told(("refused", {PLACE: 1}, "error"), ("committed", {PLACE: 1})),
            [("offsets_committed", 1), ("offsets_committed", 1)],
        )


if __name__ == "__main__":
    unittest.main()

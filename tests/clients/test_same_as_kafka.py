"""The answers of a real Kafka broker and of ours, side by side: see compare_with_kafka.py."""

import unittest

from compare_with_kafka import compare


class SameAsKafkaTest(unittest.TestCase):
    def test_what_differs_is_what_is_meant_to(self):
        unexplained, stale, asked = compare()
        self.assertGreater(asked, 250)
        self.assertEqual(unexplained, [], "not in compare_expected.py")
        self.assertEqual(stale, [], "in compare_expected.py, and nothing differs so")

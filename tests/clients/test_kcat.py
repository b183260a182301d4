"""kcat, as people use it."""

import json
import subprocess

from cluster import BOOTSTRAP, PATIENCE, ClusterTest, create_topic


def kcat(*arguments, text=None):
    command = ["kcat", "-b", BOOTSTRAP, *arguments]
    return subprocess.run(command, input=text, capture_output=True, check=True, text=True, timeout=PATIENCE).stdout


class KcatTest(ClusterTest):
    def test_lines_in_lines_out(self):
        topic = create_topic()
        lines = "".join(f"k{i}:line {i}\n" for i in range(1000))
        kcat("-P", "-t", topic, "-p", "0", "-K", ":", "-X", "acks=all", text=lines)
        out = kcat("-C", "-q", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-K", ":")
        self.assertEqual(out, lines)
        last = kcat("-C", "-q", "-t", topic, "-p", "0", "-o", "-2", "-e", "-f", "%o %k %s\n")
        self.assertEqual(last, "998 k998 line 998\n999 k999 line 999\n")

    def test_listing(self):
        topic = create_topic(partitions=2)
        listing = json.loads(kcat("-L", "-J", "-t", topic))
        self.assertEqual(sorted(broker["id"] for broker in listing["brokers"]), [1, 2, 3])
        [described] = listing["topics"]
        self.assertEqual(len(described["partitions"]), 2)
        self.assertTrue(all(len(partition["replicas"]) == 3 for partition in described["partitions"]))

    def test_offset_by_time(self):
        topic = create_topic()
        kcat("-P", "-t", topic, "-p", "0", text="a\nb\n")
        self.assertIn("offset 0", kcat("-Q", "-t", f"{topic}:0:1000"))

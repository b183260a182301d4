"""kcat, as people use it."""

import json
import subprocess

from cluster import BOOTSTRAP, CODECS, LARGEST_VALUE, PATIENCE, ClusterTest, create_topic


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

    def test_each_codec(self):
        topic = create_topic()
        sent = ""
        for codec in CODECS:
            lines = "".join(f"{codec} {i} {'x' * 50}\n" for i in range(200))
            kcat("-P", "-t", topic, "-p", "0", "-z", codec, "-X", "enable.idempotence=true", text=lines)
            sent += lines
        self.assertEqual(kcat("-C", "-q", "-t", topic, "-p", "0", "-o", "beginning", "-e"), sent)

    def test_nulls_and_headers(self):
        topic = create_topic()
        # With -Z an empty key or value is a null one.
        null_too = ["-P", "-t", topic, "-p", "0", "-K", ":", "-Z", "-H", "h=1", "-H", "other=x", "-H", "h=2"]
        kcat(*null_too, text="k:v\n:no key\nno value:\n")
        out = kcat("-C", "-q", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-f", "%K %k %S %s %h\n")
        headers = "h=1,other=x,h=2"
        self.assertEqual(out, f"1 k 1 v {headers}\n-1  6 no key {headers}\n8 no value -1  {headers}\n")

    def test_the_largest_record(self):
        topic = create_topic()
        sending = ["-P", "-t", topic, "-p", "0", "-X", "message.max.bytes=2000000"]
        kcat(*sending, text="x" * LARGEST_VALUE)
        with self.assertRaises(subprocess.CalledProcessError) as raised:
            kcat(*sending, text="x" * (LARGEST_VALUE + 1))
        self.assertIn("Message size too large", raised.exception.stderr)
        lengths = kcat("-C", "-q", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-f", "%S\n")
        self.assertEqual(lengths, f"{LARGEST_VALUE}\n")

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
        [first, second] = kcat("-C", "-q", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-f", "%T\n").split()
        self.assertLessEqual(int(first), int(second))
        since = kcat("-C", "-q", "-t", topic, "-p", "0", "-o", f"s@{first}", "-e")
        self.assertEqual(since, "a\nb\n")
        self.assertEqual(kcat("-C", "-q", "-t", topic, "-p", "0", "-o", f"s@{int(second) + 1}", "-e"), "")

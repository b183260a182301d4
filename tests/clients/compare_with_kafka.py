#!/usr/bin/env python3
"""Asks a real Apache Kafka broker and one of ours the same things, and shows where the answers differ.

    tests/clients/run.sh --script tests/clients/compare_with_kafka.py [--only WORD] [--show]

One broker and one controller on either side. What cannot be equal (ids, ports, texts of messages) is made
equal first. A difference that EXPECTED names is meant (docs/differences.md says why); any other is printed,
and the exit code is 1. So is an expectation that nothing meets any more. --show prints every answer.
"""

import argparse
import json
import re
import sys
import time

import compare_configurations
import compare_consumer_groups
import compare_nodes
import compare_records
import compare_topics
from compare_expected import EXPECTED
from compare_records import produce
from compare_topics import START, create_topics, delete_records, list_offsets, metadata, new_topic
from own_cluster import OwnCluster
from real_kafka import RealKafka
from wire import Closed, NoAnswer, Wire, batch

# Seconds until something counts as never coming.
PATIENCE = 120.0
# In this order; later cases may see what earlier ones did.
SUBJECTS = (compare_topics, compare_configurations, compare_nodes, compare_records, compare_consumer_groups)


class Side:
    """One of the two: the cases speak to it through this."""

    def __init__(self, bootstrap):
        self.wire = Wire(bootstrap)

    def ask(self, request, **options):
        try:
            return self.wire.ask(request, **options).to_dict(json=False)
        except Closed:
            return "the connection was closed"
        except NoAnswer:
            return "no answer"

    def create(self, name, partitions=1, configs=()):
        answer = self.ask(create_topics(new_topic(name, partitions, configs=configs)))
        assert answer["topics"][0]["error_code"] == 0, answer
        # Kafka answers before the broker knows the topic and leads it.
        ends = list_offsets(name, *((index, -1, -1) for index in range(partitions)))
        self.ask_until(ends, lambda answer: not any(led["error_code"] for led in answer["topics"][0]["partitions"]))

    def ask_until(self, request, shows):
        """Asks until the answer shows something: Kafka's controller answers before its broker has followed."""
        deadline = time.monotonic() + PATIENCE
        while not shows(answer := self.ask(request)):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        return answer

    def metadata(self, name):
        return self.ask(metadata([name]))["topics"][0]

    def topic_id(self, name):
        return self.metadata(name)["topic_id"]


def prepare(side):
    """The same ground on both sides."""
    # Its records are old: nothing but the cases may delete them.
    side.create("t", 2, configs=[("retention.ms", "-1")])
    for i in range(5):
        answer = side.ask(produce("t", batch([b"v%d" % i], timestamp=START + i * 1000)))
        assert answer["responses"][0]["partition_responses"][0]["error_code"] == 0, answer
    assert side.ask(delete_records("t", (0, 1)))["topics"][0]["partitions"][0]["error_code"] == 0
    side.create("empty")
    side.create("compacted", configs=[("cleanup.policy", "compact")])
    side.create("a.b")
    side.create("small", configs=[("max.message.bytes", "200")])
    side.create("strict", configs=[("message.timestamp.after.max.ms", "1000")])
    side.create("produced", 12)
    side.create("gone")
    side.create("configured", configs=[("retention.ms", "5000")])
    side.create("work", 4)


# What two clusters can never have in common.
_VOLATILE = {"topic_id", "cluster_id", "host", "port", "throttle_time_ms", "log_append_time_ms", "session_id"}


def plain(value, key=None):
    """An answer, with what may differ made the same."""
    if isinstance(value, dict):
        return {k: plain(v, k) for k, v in value.items() if k not in _VOLATILE}
    if isinstance(value, (list, tuple)):
        return [plain(element) for element in value]
    if key in ("error_message", "documentation") and value is not None:
        # Texts differ; whether there is one counts.
        return "a text"
    if key == "producer_id" and value is not None and value >= 0:
        return "an id"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(bytes(value))} bytes"
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)


def differences(kafka, ours, path=""):
    """Where two answers differ: (path, Kafka's, ours)."""
    if isinstance(kafka, dict) and isinstance(ours, dict):
        for key in list(kafka) + [key for key in ours if key not in kafka]:
            if key not in ours:
                yield f"{path}.{key} (only Kafka)", kafka[key], None
            elif key not in kafka:
                yield f"{path}.{key} (only Ottla)", None, ours[key]
            else:
                yield from differences(kafka[key], ours[key], f"{path}.{key}")
    elif isinstance(kafka, list) and isinstance(ours, list) and len(kafka) == len(ours):
        keyed = sorted_alike(kafka), sorted_alike(ours)
        for index, (a, b) in enumerate(zip(*keyed)):
            yield from differences(a, b, f"{path}[{index}]")
    elif kafka != ours and not (path.endswith("error_message") and kafka is None):
        yield path, kafka, ours


def sorted_alike(elements):
    return sorted(elements, key=lambda e: json.dumps(e, sort_keys=True) if not isinstance(e, dict) else name_of(e))


def name_of(element):
    for key in ("name", "topic", "topic_name", "partition_index", "partition", "partition_id", "index", "resource_name"):
        if element.get(key) is not None:
            return f"{element[key]}"
    return ""


def compare(only="", show=False):
    """Asks both sides every case whose name has `only`. What it found: the differences that nothing explains, the
    expectations that nothing met, and how many cases there were."""
    settings = ["auto.create.topics.enable=true", "num.partitions=1", *compare_consumer_groups.KAFKA_SETTINGS]
    kafka = RealKafka(settings=settings, disks=2)
    ottla = OwnCluster(brokers=1, controllers=1, disks=2)
    unexplained, met, asked = [], set(), 0
    try:
        kafka.start()
        ottla.start()
        sides = [Side(kafka.bootstrap), Side(ottla.bootstrap)]
        for side in sides:
            prepare(side)
        for name, case in (case for subject in SUBJECTS for case in subject.cases()):
            if only not in name:
                continue
            asked += 1
            answers = [plain(case(side)) for side in sides]
            if show:
                print(f"{name}\n  {answers[0]}\n  {answers[1]}")
            for path, theirs, ours in differences(*answers):
                place = f"{name}: {path}"
                reason = next((pattern for pattern in EXPECTED if re.fullmatch(pattern, place)), None)
                if reason:
                    met.add(reason)
                else:
                    unexplained.append(f"{place}\n    Kafka {theirs!r}\n    Ottla {ours!r}")
    finally:
        kafka.close()
        ottla.close()
    stale = [] if only else [pattern for pattern in EXPECTED if pattern not in met]
    return unexplained, stale, asked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="only the cases whose name has this word")
    parser.add_argument("--show", action="store_true", help="print every answer")
    arguments = parser.parse_args()
    unexplained, stale, asked = compare(arguments.only, arguments.show)
    for difference in unexplained:
        print(difference)
    for pattern in stale:
        print(f"nothing differs any more as expected here: {pattern}")
    print(f"{asked} cases, {len(unexplained)} differences unexplained, {len(stale)} expectations not met")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())

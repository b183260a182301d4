"""Compaction beside a producer: how fast logs are cleaned, and what that does to acknowledgements.

Both sides keep the same files, so both are measured by them: the segments that are to be cleaned are those in front
of the one that is written to, and a log is clean when `cleaner-offset-checkpoint` says so of that segment's base.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .client import Failed
from .measure import FLUSH, PACED_PER_SECOND, RECORD_BYTES, produced

# On both sides alike. The rate stays as it is by default: without a bound.
PROPERTIES = {
    "log.cleaner.threads": 1,
    "log.cleaner.dedupe.buffer.size": 128 << 20,
    # How long a cleaner without work waits before it looks again: it would be part of the figure.
    "log.cleaner.backoff.ms": 100,
}
SEGMENT_BYTES = 64 << 20
CHECKPOINT = "cleaner-offset-checkpoint"
LOOK_SECONDS = 0.02
PATIENCE = 180


class Lengths:
    def __init__(self, seconds):
        short = seconds < 10
        self.records = 192 << 10 if short else 512 << 10
        # Each is written about ten times.
        self.keys = self.records // 10
        self.alone = 3 if short else 6


@dataclass(frozen=True)
class Log:
    """One replica of a topic's only partition."""

    folder: Path
    topic: str

    def segments(self):
        """Bytes by base offset."""
        return {int(file.stem): file.stat().st_size for file in (self.folder / f"{self.topic}-0").glob("*.log")}

    def clean_up_to(self):
        """As the broker has noted it; it writes the file anew each time."""
        try:
            lines = (self.folder / CHECKPOINT).read_text().splitlines()
        except FileNotFoundError:
            return 0
        found = [line.split() for line in lines[2:]]
        return next((int(offset) for topic, _, offset in found if topic == self.topic), 0)


def measure(turn, row, lengths):
    """Cleans a log on three brokers at once, while a producer goes on at its pace."""
    flush = row["flush"]
    # Until its policy changes, nothing is cleaned.
    dirty = {"segment_bytes": SEGMENT_BYTES, "min_cleanable_dirty_ratio": 0.01}
    topic = turn.create(f"compacted-{FLUSH[flush]}", 1, FLUSH["page cache"], cleanup_policy="delete", **dirty)
    paced = turn.create(f"beside-{FLUSH[flush]}", 1, FLUSH[flush])
    turn.client.call(
        "fill", *turn.at(topic), "--records", lengths.records, "--keys", lengths.keys, "--record-bytes", RECORD_BYTES,
        timeout=180,
    )  # fmt: skip
    turn.settle()
    pace = ("--rate", PACED_PER_SECOND, "--linger-ms", 0)
    alone = turn.produce(paced, lengths.alone, *pace)
    logs = [Log(folder, topic) for folder in sorted((turn.cluster.folder / "data").glob("broker-*"))]
    before = [log.segments() for log in logs]
    running = turn.client.begin(
        "produce", *turn.at(paced), *turn.window(PATIENCE), "--record-bytes", RECORD_BYTES, *pace, "--told"
    )
    try:
        # Its warm-up.
        time.sleep(2.5)
        running.tell()
        compact = turn.configs(FLUSH["page cache"], cleanup_policy="compact", **dirty)
        asked = turn.client.call("alter-topic", *turn.at(topic), *compact, timeout=30)["asked_at"]
        seconds = [at - asked for at in cleaned(turn, logs, before)]
        beside = produced(running.finish(60))
    finally:
        running.kill()
    figures = compare(before, [log.segments() for log in logs], seconds)
    busy = beside["cpu_seconds"]["brokers"] - alone["cpu_seconds"]["brokers"] * beside["seconds"] / alone["seconds"]
    turn.measured(
        "cleaner", row, **figures,
        cpu_seconds_per_gb=busy / (sum(figures["dirty_bytes"]) / 1e9),
        alone=alone, beside=beside,
        alone_p99=alone["acknowledgement_ms"]["p99"], beside_p99=beside["acknowledgement_ms"]["p99"],
    )  # fmt: skip
    turn.delete(topic)
    turn.delete(paced)


def cleaned(turn, logs, before):
    """When each of the logs was clean."""
    deadline = time.monotonic() + PATIENCE
    clean = {}
    while len(clean) < len(logs):
        for log, segments in zip(logs, before):
            if log not in clean and log.clean_up_to() >= max(segments):
                clean[log] = time.time()
        if time.monotonic() > deadline:
            turn.cluster.check()
            raise Failed(f"{len(clean)} of {len(logs)} logs are clean after {PATIENCE} s")
        time.sleep(LOOK_SECONDS)
    return [clean[log] for log in logs]


def compare(before, after, seconds):
    """Bytes of the segments that were cleaned, and of what is left of them."""
    sealed = lambda segments, end: sum(size for base, size in segments.items() if base < end)  # noqa: E731
    dirty = [sealed(segments, max(segments)) for segments in before]
    left = [sealed(now, max(then)) for now, then in zip(after, before)]
    if not all(dirty) or any(l > d / 2 for l, d in zip(left, dirty)):
        raise Failed(f"logs were not cleaned: of {dirty} bytes there are {left}")
    return {
        "dirty_bytes": dirty,
        "left_bytes": left,
        "clean_after_seconds": seconds,
        "mb_per_second": median(size / 1e6 / took for size, took in zip(dirty, seconds)),
        "slowest_seconds": max(seconds),
    }

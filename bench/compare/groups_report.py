"""Tables of what was measured of groups and of the cleaner."""

from math import ceil
from statistics import median

from .groups import SHAPES, Repetitions
from .measure import FLUSH
from .report import SIDES, Figures, conditions, number, ratio, spread

MARKERS = ("<!-- groups: begin (written by bench/compare.sh --groups --publish) -->", "<!-- groups: end -->")

PROTOCOLS = {"classic": "classic", "consumer": "KIP-848"}
NAMES = {"ottla": "Ottla", "kafka": "Apache Kafka"}

COMMITS = ("commits/s", lambda one: one["commits_per_second"], True)
COMMIT_P50 = ("acknowledgement p50, ms", lambda one: one["commit_ms"]["p50"], False)
COMMIT_P99 = ("acknowledgement p99, ms", lambda one: one["commit_ms"]["p99"], False)
COMMIT_COST = ("brokers, CPU ms for 1,000 commits", lambda one: one["cpu_seconds"]["brokers"] / one["commits"] * 1e6, False)
COMMIT_METRICS = (COMMITS, COMMIT_P50, COMMIT_P99, COMMIT_COST)


def line(head, sides, more_is_better=False):
    return f"| {' | '.join((*head, spread(sides[0]), spread(sides[1]), ratio(*sides, more_is_better)))} |"


def header(*head):
    columns = (*head, "Ottla", "Apache Kafka", "Ottla is better by")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"


def of_both(figures, what, take, **row):
    return [figures.of(side, what, take, **row) for side in SIDES]


def advertise(figures):
    """The sides that have the protocol of KIP-848; who was not asked has it."""
    return {side for side in SIDES if all(figures.of(side, "protocols", lambda one: one["consumer"]))}


def protocol_line(figures, head, sides, quotient=True):
    """A row of one of the protocols: nobody fails in what he does not offer."""
    has = advertise(figures)
    cells = [
        "not advertised" if not values and PROTOCOLS["consumer"] in head and side not in has else spread(values)
        for side, values in zip(SIDES, sides)
    ]
    return f"| {' | '.join((*head, *cells, ratio(*sides, False) if quotient else '–'))} |"


def formation(figures):
    yield "### A group forms\n"
    yield from header("Protocol", "Figure")
    yield line(("classic", "the cluster's first group, one member, ms"), of_both(figures, "first group", lambda one: one["ms"]))
    for protocol, label in PROTOCOLS.items():
        for what, take in (
            ("100 members: stable after, ms", lambda one: one["stable_ms"]),
            ("of that, until all clients were made, ms", lambda one: one["clients_ms"]),
            ("one more member: stable after, ms", lambda one: one["grown_ms"]),
        ):
            if any(sides := of_both(figures, "formation", take, protocol=protocol)):
                yield protocol_line(figures, (label, what), sides)
    yield ""


def takeover(figures):
    beyond = lambda one: one["ms"] - one["session_timeout_ms"]  # noqa: E731
    yield "### A member goes\n"
    yield from header("Protocol", "How", "Figure")
    for protocol, label in PROTOCOLS.items():
        for how, shown, what, take in (
            ("kill", "kill -9", "its partitions are taken over after, ms", lambda one: one["ms"]),
            ("kill", "kill -9", "of that, beyond the session timeout of 6,000 ms, ms", beyond),
            ("leave", "says goodbye", "its partitions are taken over after, ms", lambda one: one["ms"]),
        ):
            if any(sides := of_both(figures, "takeover", take, protocol=protocol, how=how)):
                # Beyond the timeout is a difference, which may be nothing or less: no quotient says anything of it.
                yield protocol_line(figures, (label, shown, what), sides, take is not beyond)
    yield ""


def commits(figures):
    yield "### Commits, default against default: Ottla with fsync, Kafka without\n"
    yield "| Load | Figure | Ottla, fsync | Apache Kafka, page cache | Ottla is better by |"
    yield "|---|---|---|---|---|"
    for shape in SHAPES:
        for label, take, more in COMMIT_METRICS:
            sides = [
                figures.of(side, "commits", take, shape=shape, flush=flush)
                for side, flush in zip(SIDES, ("fsync", "page cache"))
            ]
            yield line((shape, label), sides, more)
    yield ""
    yield "### Commits, like against like\n"
    yield from header("Load", "Durability", "Figure")
    for shape in SHAPES:
        for flush in FLUSH:
            for label, take, more in COMMIT_METRICS:
                yield line((shape, flush, label), of_both(figures, "commits", take, shape=shape, flush=flush), more)
    yield ""


def failover(figures):
    yield "### The coordinator's broker is killed\n"
    yield from header("Figure", "")
    for what, key in (
        ("a commit is acknowledged again, asked for all the time, ms", "probe_ms"),
        ("the first member's commit is acknowledged again, ms", "first_ms"),
        ("all members' are, and no rebalance is under way, ms", "stable_ms"),
    ):
        sides = of_both(figures, "failover", lambda one, key=key: one[key])
        for label, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            values = [[percentile(side, share)] if side else [] for side in sides]
            yield line((what, label), values)
    counts = [len(side) for side in of_both(figures, "failover", lambda one: one["probe_ms"])]
    rebalanced = [sum(side) for side in of_both(figures, "failover", lambda one: one["rebalanced"])]
    yield ""
    yield (
        f"Ottla's was killed {counts[0]} times, Kafka's {counts[1]} times; with so few a p99 is the greatest."
        f" Members had to join again after {rebalanced[0]} and {rebalanced[1]} of them."
    )
    yield ""


def percentile(values, share):
    """A value that occurred: the least that at least this share of all does not exceed."""
    return sorted(values)[max(1, ceil(len(values) * share)) - 1]


def cleaner(figures):
    yield "### The cleaner, and a producer beside it\n"
    yield from header("Durability of the producer's topic", "Figure")
    for flush in FLUSH:
        for what, take, more in (
            ("cleaned, MB/s of one broker", lambda one: one["mb_per_second"], True),
            ("all three brokers' logs clean after, s", lambda one: one["slowest_seconds"], False),
            ("brokers, CPU s/GB cleaned", lambda one: one["cpu_seconds_per_gb"], False),
            ("acknowledgement p50 without cleaning, ms", lambda one: one["alone"]["acknowledgement_ms"]["p50"], False),
            ("acknowledgement p50 while logs are cleaned, ms", lambda one: one["beside"]["acknowledgement_ms"]["p50"], False),
            ("acknowledgement p99 without cleaning, ms", lambda one: one["alone"]["acknowledgement_ms"]["p99"], False),
            ("acknowledgement p99 while logs are cleaned, ms", lambda one: one["beside"]["acknowledgement_ms"]["p99"], False),
        ):
            yield line((flush, what), of_both(figures, "cleaner", take, flush=flush), more)
    sizes = [sum(one["dirty_bytes"]) / len(one["dirty_bytes"]) for one in figures.measurements if "dirty_bytes" in one]
    left = [sum(one["left_bytes"]) / len(one["left_bytes"]) for one in figures.measurements if "left_bytes" in one]
    yield ""
    if sizes:
        yield f"Each of the three replicas had {number(median(sizes) / 1e6)} MB to clean, of which {number(median(left) / 1e6)} MB were left."
    yield ""


def absent(figures):
    """Whoever does not advertise the protocol of KIP-848 has no figures in it."""
    for side in SIDES:
        if side not in advertise(figures):
            yield f"{NAMES[side]} does not advertise the protocol of KIP-848 (ConsumerGroupHeartbeat in ApiVersions)."
            yield ""


def tables(results):
    figures = Figures(results)
    parts = (
        conditions(results, figures, ("commits",), Repetitions(results["seconds"]).commits),
        absent(figures),
        formation(figures), takeover(figures), commits(figures), failover(figures), cleaner(figures),
    )  # fmt: skip
    return "\n".join(text for part in parts for text in part)

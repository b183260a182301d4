"""From every single measurement to tables: medians, with the least and the greatest."""

from statistics import median

from .measure import FLUSH, PARTITIONS, cpu_seconds_per_gb

# Where the tables stand in docs/benchmarks.md.
MARKERS = ("<!-- figures: begin (written by bench/compare.sh --publish) -->", "<!-- figures: end -->")
SIDES = ("ottla", "kafka")


class Figures:
    """The measurements of a run, by what they measure."""

    def __init__(self, results):
        self.results = results
        self.measurements = results["measurements"]

    def of(self, side, what, take, **row):
        """One value for each round in which the measurement worked."""
        values = []
        for one in self.measurements:
            if one["side"] != side or one["what"] != what or "failure" in one:
                continue
            if any(one.get(key) != value for key, value in row.items()):
                continue
            if (value := take(one)) is not None:
                values.append(value)
        return values


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def spread(values):
    """Median (least–greatest)."""
    if not values:
        return "failed"
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))}–{number(max(values))})"


def ratio(ottla, kafka, more_is_better):
    """How many times better Ottla is; below 1 it is worse. Nothing where there is nothing to divide."""
    if not ottla or not kafka or median(ottla) <= 0 or median(kafka) <= 0:
        return "–"
    quotient = median(ottla) / median(kafka)
    return f"{quotient if more_is_better else 1 / quotient:.2f}"


RATE = ("records/s", lambda one: one["records_per_second"], True)
P50 = ("acknowledgement p50, ms", lambda one: one["acknowledgement_ms"]["p50"], False)
P99 = ("acknowledgement p99, ms", lambda one: one["acknowledgement_ms"]["p99"], False)
BROKER_COST = ("brokers, CPU s/GB", lambda one: cpu_seconds_per_gb(one, "brokers"), False)
CLIENT_COST = ("client, CPU s/GB", lambda one: cpu_seconds_per_gb(one, "client"), False)
SECTIONS = (
    ("Produce, as fast as it goes", "produce", (RATE, BROKER_COST, CLIENT_COST, P50, P99)),
    ("Produce, 1,000 records a second on a schedule", "paced", (P50, P99)),
    ("Consume, from the page cache", "consume", (RATE, BROKER_COST, CLIENT_COST)),
)


def rows(figures):
    for title, what, metrics in SECTIONS:
        yield f"### {title}\n"
        yield "| Partitions | Durability | Figure | Ottla | Apache Kafka | Ottla is better by |"
        yield "|---|---|---|---|---|---|"
        for partitions in PARTITIONS:
            for flush in FLUSH:
                for label, take, more in metrics:
                    sides = [figures.of(side, what, take, partitions=partitions, flush=flush) for side in SIDES]
                    yield f"| {partitions} | {flush} | {label} | {spread(sides[0])} | {spread(sides[1])} | {ratio(*sides, more)} |"
        yield ""


def defaults(figures):
    """Each side as it comes: Ottla flushes before it acknowledges, Kafka does not."""
    yield "### Default against default: Ottla with fsync, Kafka without\n"
    yield "| Partitions | Figure | Ottla, fsync | Apache Kafka, page cache | Ottla is better by |"
    yield "|---|---|---|---|---|"
    for partitions in PARTITIONS:
        for what, (label, take, more) in (("produce", RATE), ("produce", BROKER_COST), ("paced", P50), ("paced", P99)):
            ottla = figures.of("ottla", what, take, partitions=partitions, flush="fsync")
            kafka = figures.of("kafka", what, take, partitions=partitions, flush="page cache")
            label = f"paced {label}" if what == "paced" else label
            yield f"| {partitions} | {label} | {spread(ottla)} | {spread(kafka)} | {ratio(ottla, kafka, more)} |"
    yield ""


def cluster(figures):
    yield "### The cluster\n"
    yield "| Figure | Ottla | Apache Kafka | Ottla is better by |"
    yield "|---|---|---|---|"
    for label, what, take in (
        ("start to all brokers known, ms", "start", lambda one: one["all_brokers_ms"]),
        ("start to first acknowledgement, ms", "start", lambda one: one["first_acknowledgement_ms"]),
        ("largest broker's peak memory, MiB", "memory", lambda one: one["peak_mib"]["brokers"]),
        ("largest controller's peak memory, MiB", "memory", lambda one: one["peak_mib"]["controllers"]),
    ):
        sides = [figures.of(side, what, take) for side in SIDES]
        yield f"| {label} | {spread(sides[0])} | {spread(sides[1])} | {ratio(*sides, False)} |"
    yield ""


def conditions(results, figures, loads, window):
    """What was compared and on what; `loads` are the measurements whose windows are `window` seconds, and which say
    what CPU time was used meanwhile."""
    machine = results["machine"]
    yield (
        f"{results['started']}, commit `{results['commit']}`; Ottla {results['versions']['ottla']} against Apache Kafka"
        f" {results['versions']['kafka']} on {results['versions']['java']}, client librdkafka {results['versions']['librdkafka']}."
    )
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}."
        f" {results['rounds']} rounds, windows of {window:g} s."
    )
    noise = []
    for side in SIDES:
        share = lambda one: one["cpu_seconds"]["others"] / one["seconds"]  # noqa: E731
        values = [value for what in loads for value in figures.of(side, what, share)]
        noise.append(f"{side} {spread(values)}")
    yield f"Cores that all other work of the machine took meanwhile (kernel's write-back included): {', '.join(noise)}."
    failures = [one for one in results["measurements"] if "failure" in one]
    for one in failures:
        place = " ".join(str(value) for key, value in one.items() if key not in ("side", "round", "what", "failure"))
        yield f"- failed: {one['side']}, round {one['round']}, {one['what']} {place}: {one['failure'].splitlines()[0]}"
    yield ""


def tables(results):
    figures = Figures(results)
    noted = conditions(results, figures, ("paced", "produce", "consume"), results["seconds"])
    parts = (noted, defaults(figures), rows(figures), cluster(figures))
    return "\n".join(line for part in parts for line in part)


def publish(page, markers, text):
    """Puts the tables between the page's markers."""
    begin, end = markers
    old = page.read_text()
    before, rest = old.split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")

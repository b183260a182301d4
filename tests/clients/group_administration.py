"""kafka-consumer-groups, unmodified: everything it does to a group, as steps of a scenario."""

import datetime
import tempfile
from concurrent.futures import ThreadPoolExecutor

import java_tools
from cluster import NeverHappened, wait_until
from group_scenarios import Row, Scenario, Step, join
from members import CONFLUENT, CONSUMER, kinds

# Enough for each partition that every form of a reset goes elsewhere.
_RECORDS = 8
_AT = 4
_LONG_AGO, _MUCH_LATER = "2001-01-01T00:00:00.000", "2101-01-01T00:00:00.000"


class GroupsTool:
    """The tool against one cluster."""

    def __init__(self, bootstrap):
        # A coordinator may be dead when it begins.
        self._place = ["--bootstrap-server", bootstrap, "--timeout", "180000"]

    def output(self, *arguments):
        """What it prints; it must succeed."""
        done = self._run(*arguments)
        # Its exit code is 0 in any case.
        assert done.returncode == 0 and "command failed" not in done.stdout, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def _run(self, *arguments):
        done = java_tools.run("kafka-consumer-groups", *self._place, *arguments)
        if "TimeoutException" in done.stdout + done.stderr:
            raise NeverHappened(f"{arguments}: {done.stdout}{done.stderr}")
        return done

    def table(self, *arguments):
        """The rows that it prints, as dictionaries by the column's name."""
        lines = [line.split() for line in self.output(*arguments).splitlines() if line.strip()]
        heads = [at for at, words in enumerate(lines) if words[0] == "GROUP"]
        if not heads:
            return []
        head = lines[heads[0]]
        return [dict(zip(head, words)) for words in lines[heads[0] + 1 :]]

    def refused(self, *arguments):
        """What it says, whatever it ends with."""
        done = self._run(*arguments)
        return done.stdout + done.stderr


def expect(found, wanted, what):
    assert found == wanted, f"{what}: {found} instead of {wanted}"


def expect_in_the_end(run, look):
    """Calls `look`, which expects something, until it finds that: a coordinator may be dead, a group rebalance. The time
    begins anew whenever one is killed."""
    unlike = []

    def is_found():
        try:
            look()
            return True
        # What is not known is told as a dash, or as nothing at all.
        except (AssertionError, LookupError, ValueError) as other:
            unlike.append(other)
            return False

    wait_until(is_found, lambda: f"{type(unlike[-1]).__name__}: {unlike[-1]}", progress=lambda: len(run.kills))


def _tool(run):
    return GroupsTool(run.cluster.bootstrap)


def _describe(run):
    tool, group = _tool(run), ["--group", run.group]
    with ThreadPoolExecutor(2) as both:
        state = both.submit(tool.table, "--describe", *group, "--state")
        members = both.submit(tool.table, "--describe", *group, "--members", "--verbose")
        offsets = both.submit(tool.table, "--describe", *group)
        everything = both.submit(tool.table, "--describe", "--all-groups", "--offsets")
    expect([(row["STATE"], row["#MEMBERS"]) for row in state.result()], [("Stable", "2")], "state")
    rows = members.result()
    expect(sorted(row["#PARTITIONS"] for row in rows), ["2", "2"], "members")
    expect({row["HOST"] for row in rows}, {"/127.0.0.1"}, "hosts")
    assigned = [row["CURRENT-ASSIGNMENT"].removeprefix(f"{run.topics[0]}:").split(",") for row in rows]
    expect(sorted(partition for some in assigned for partition in some), list("0123"), "assignment")
    for rows in (offsets.result(), [row for row in everything.result() if row["GROUP"] == run.group]):
        expect(sorted(row["PARTITION"] for row in rows), list("0123"), "partitions")
        for row in rows:
            expect(int(row["LOG-END-OFFSET"]) - int(row["CURRENT-OFFSET"]), int(row["LAG"]), "lag")


def _list(run):
    """By state, by type, and by both: what a filter does not want is not there."""
    tool = _tool(run)
    own, other = ("Consumer", "Classic") if run.row.kinds[0].protocol == CONSUMER else ("Classic", "Consumer")
    forms = [
        (["--state"], {"STATE": "Stable"}),
        (["--type"], {"TYPE": own}),
        (["--state", "Stable", "--type", own], {"STATE": "Stable", "TYPE": own}),
        (["--state", "Empty"], None),
        (["--type", other], None),
    ]

    def look(form):
        arguments, wanted = form
        found = [row for row in tool.table("--list", *arguments) if row["GROUP"] == run.group]
        listed = [{column: row[column] for column in wanted or row} for row in found]
        expect(listed, [wanted] if wanted else [], f"listed by {arguments}")

    with ThreadPoolExecutor(2) as both:
        # Nobody may coordinate the group at the moment.
        list(both.map(lambda form: expect_in_the_end(run, lambda: look(form)), forms))
    expect_in_the_end(run, lambda: expect(run.group in tool.output("--list").split(), True, "listed"))


def _refuse(run):
    tool, whole = _tool(run), ["--group", run.group, "--topic", run.topics[0]]
    with ThreadPoolExecutor(2) as both:
        delete = both.submit(tool.refused, "--delete", "--group", run.group)
        reset = both.submit(tool.refused, "--reset-offsets", "--to-earliest", "--execute", *whole)
        offsets = both.submit(tool.refused, "--delete-offsets", *whole)
    assert "GroupNotEmptyException" in delete.result(), delete.result()
    assert "can only be reset if the group" in reset.result(), reset.result()
    assert "subscribed to" in offsets.result().lower(), offsets.result()


def _leave(run):
    """Nobody is left, and nothing moves any more."""
    wait_until(lambda: min(run.history.ends().values()) >= _RECORDS, "too little is produced")
    run.flow.stop()
    run.catch_up()
    for member in list(run.members):
        run.stop(member)
    # Whoever left while the coordinator was dead is a member until its session is over.
    expect_in_the_end(run, lambda: _expect_empty(run))
    expect(_committed(run), run.history.ends(), "committed when everybody has left")
    run.observer.stop_watching()


def _expect_empty(run):
    # Not with librdkafka's admin client, which ends the process (an assertion) when a coordinator dies under it.
    rows = _tool(run).table("--describe", "--group", run.group, "--state")
    expect([row["STATE"] for row in rows], ["Empty"], "state when everybody has left")


def _committed(run):
    return wait_until(lambda: run.observer.ask(run.observer.places), "nobody knows what is committed")


def _to(run, offset):
    """Each place at `offset`, or at its end where it has less."""
    return {place: min(offset, end) for place, end in run.history.ends().items()}


def _reset_forms(run):
    """Every form of a reset of a group that stands at _AT: arguments, and where it ends."""
    ends = run.history.ends()
    return [
        (["--to-earliest"], _to(run, 0)),
        (["--to-latest"], ends),
        (["--to-current"], _to(run, _AT)),
        (["--to-offset", "5"], _to(run, 5)),
        (["--to-offset", "1000000"], ends),
        (["--shift-by", "-3"], _to(run, _AT - 3)),
        (["--shift-by", "2"], _to(run, _AT + 2)),
        (["--shift-by", "-1000000"], _to(run, 0)),
        (["--to-datetime", _LONG_AGO], _to(run, 0)),
        (["--to-datetime", _MUCH_LATER], ends),
        (["--by-duration", "PT1H"], _to(run, 0)),
        (["--by-duration", "PT0S"], ends),
    ]


def _new_offsets(rows):
    return {(row["TOPIC"], int(row["PARTITION"])): int(row["NEW-OFFSET"]) for row in rows}


def _reset(run):
    tool, topic = _tool(run), run.topics[0]
    whole = ["--reset-offsets", "--group", run.group, "--topic", topic]
    tool.table(*whole, "--to-offset", str(_AT), "--execute")
    expect(_committed(run), _to(run, _AT), "reset to an offset")
    forms = _reset_forms(run)
    with ThreadPoolExecutor(2) as some:
        planned = some.map(lambda form: tool.table(*whole, *form[0], "--dry-run"), forms)
        for (arguments, wanted), rows in zip(forms, planned):
            expect(_new_offsets(rows), wanted, f"planned by {arguments}")
    expect(_committed(run), _to(run, _AT), "plans change nothing")

    # Some partitions only; what was exported is executed from a file.
    some = ["--reset-offsets", "--group", run.group, "--topic", f"{topic}:0,2", "--to-latest"]
    exported = tool.output(*some, "--dry-run", "--export")
    lines = [line for line in exported.splitlines() if topic in line]
    expect(len(lines), 2, f"exported: {exported}")
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as plan:
        plan.write("\n".join(lines) + "\n")
        plan.flush()
        tool.output("--reset-offsets", "--group", run.group, "--from-file", plan.name, "--execute")
    ends = run.history.ends()
    wanted = _to(run, _AT) | {place: ends[place] for place in ends if place[1] in (0, 2)}
    expect(_committed(run), wanted, "reset from a file")
    tool.table("--reset-offsets", "--group", run.group, "--all-topics", "--to-datetime", _soon(), "--execute")
    expect(_committed(run), ends, "reset of all topics to a time")


def _soon():
    """A minute from now: there is no record that new."""
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
    return soon.strftime("%Y-%m-%dT%H:%M:%S.000")


def _delete(run):
    tool, topic = _tool(run), run.topics[0]
    tool.table("--delete-offsets", "--group", run.group, "--topic", f"{topic}:1")
    expect({place for place, offset in _committed(run).items() if offset < 0}, {(topic, 1)}, "deleted offsets")
    tool.output("--delete", "--group", run.group)
    expect(set(_committed(run).values()), {-1}, "what was committed by a group that is deleted")
    assert "GroupIdNotFoundException" in tool.refused("--describe", "--group", run.group)


ADMINISTRATION = Scenario(
    "kafka-consumer-groups",
    [
        join(2),
        Step("is described", lambda run: expect_in_the_end(run, lambda: _describe(run))),
        Step("is listed", _list),
        Step("refuses while it has members", _refuse),
        Step("everybody leaves", _leave),
        Step("is reset", _reset),
        Step("is deleted", _delete),
    ],
)


def administered():
    """A group of each protocol that everything is done to."""
    return [Row(ADMINISTRATION, (kind,), "sync") for kind in kinds(CONFLUENT)]

"""Alternates the two sides and keeps everything that was measured, also of a run that was cut short."""

import argparse
import json
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType

from . import groups_report, report
from .client import Client, Failed
from .clusters import Kafka, Ottla
from .groups import GroupsTurn
from .measure import Round, machine

ROOT = Path(__file__).resolve().parent.parent.parent
# Touched before each side starts; see docs/benchmarks.md.
TOUCHED_MIB = 12 << 10


@dataclass(frozen=True)
class Comparison:
    """What is done in a turn, and where its results go."""

    turn: type
    report: ModuleType
    evidence: str
    # Of free disk.
    needed_bytes: int


RECORDS = Comparison(Round, report, "benchmarks.json", 30 << 30)
GROUPS = Comparison(GroupsTurn, groups_report, "benchmarks-groups.json", 12 << 30)


class Log:
    """Where the run is, on standard error and in a file."""

    def __init__(self, path):
        self.file = open(path, "a", buffering=1)
        self.began = time.monotonic()
        self.place = ""

    def __call__(self, text):
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        line = f"[{minutes:02}:{seconds:02}] {self.place}{text}"
        print(line, file=sys.stderr, flush=True)
        self.file.write(line + "\n")


class Results:
    """Written anew after each measurement: what there is survives whatever comes."""

    def __init__(self, path, head):
        self.path, self.values = path, head | {"measurements": []}

    def keep(self, side, round_, figures):
        self.values["measurements"].append({"side": side, "round": round_, **figures})
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.values, indent=1) + "\n")
        temporary.rename(self.path)


def refuse_used_ports(cluster):
    for port in cluster.ports():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise Failed(f"port {port}: {error.strerror}; --base-port moves all of them") from error


def side(name, arguments, folder, properties):
    if name == "ottla":
        return Ottla(folder, arguments.base_port, properties, arguments.ottla)
    return Kafka(folder, arguments.base_port + 100, properties, arguments.kafka, arguments.work / "formatted")


def one_side(turn, name, round_, arguments, client, results, say):
    """Whatever happens to one side, the other goes on, and nothing stays behind."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=arguments.work))
    cluster = side(name, arguments, folder, turn.PROPERTIES)
    keep = lambda figures: results.keep(name, round_, figures)  # noqa: E731
    try:
        refuse_used_ports(cluster)
        client.call("touch", "--mib", TOUCHED_MIB, timeout=300)
        turn(cluster, client, arguments.seconds, say, keep).run()
    except Exception as failure:  # noqa: BLE001: not even a mistake in here may take the other side's figures
        say(f"FAILED: {failure!r}\n{traceback.format_exc()}")
        keep({"what": "round", "failure": str(failure) or repr(failure)})
        kept = arguments.out / f"logs-{name}-{round_}"
        if (folder / "logs").exists():
            shutil.copytree(folder / "logs", kept, dirs_exist_ok=True)
            say(f"the nodes' logs are in {kept}")
    finally:
        cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)


def parse():
    parser = argparse.ArgumentParser(prog="bench/compare.sh", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="how long each window is open")
    parser.add_argument("--rounds", type=int, default=3, help="how often the sides alternate")
    parser.add_argument("--groups", action="store_true", help="groups and the cleaner, not records")
    parser.add_argument("--only", choices=report.SIDES, help="one side alone, to try something out")
    parser.add_argument("--base-port", type=int, default=15092)
    parser.add_argument("--out", type=Path, required=True, help="results go here")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.md and docs/evidence/ too")
    parser.add_argument("--ottla", type=Path, required=True)
    parser.add_argument("--load", type=Path, required=True)
    parser.add_argument("--kafka", type=Path, required=True, help="folder of Kafka's jars")
    parser.add_argument("--versions", type=json.loads, required=True)
    parser.add_argument("--commit", required=True)
    return parser.parse_args()


def main():
    arguments = parse()
    comparison = GROUPS if arguments.groups else RECORDS
    arguments.out.mkdir(parents=True, exist_ok=True)
    say = Log(arguments.out / "run.log")
    # A polite end cleans up as well.
    def end(number, _frame):
        say(f"ended by {signal.Signals(number).name}")
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    results = Results(
        arguments.out / "results.json",
        {
            "started": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": arguments.commit,
            "versions": arguments.versions,
            "machine": machine(),
            "seconds": arguments.seconds,
            "rounds": arguments.rounds,
        },
    )
    client = Client(arguments.load)
    with tempfile.TemporaryDirectory(prefix="ottla-bench-") as work:
        arguments.work = Path(work)
        if (free := shutil.disk_usage(work).free) < comparison.needed_bytes:
            say(f"{work} has {free >> 30} GiB free, {comparison.needed_bytes >> 30} are needed; TMPDIR names another place")
            return 2
        try:
            for round_ in range(1, arguments.rounds + 1):
                for name in [arguments.only] if arguments.only else report.SIDES:
                    say.place = f"round {round_}/{arguments.rounds}, {name}: "
                    say("starting")
                    one_side(comparison.turn, name, round_, arguments, client, results, say)
        finally:
            say.place = ""
            text = comparison.report.tables(results.values)
            (arguments.out / "tables.md").write_text(text + "\n")
            say(f"results and tables are in {arguments.out}")
    print(text)
    if arguments.publish:
        evidence = f"docs/evidence/{comparison.evidence}"
        report.publish(ROOT / "docs/benchmarks.md", comparison.report.MARKERS, text)
        shutil.copy(results.path, ROOT / evidence)
        say(f"docs/benchmarks.md and {evidence} are written")
    return 1 if any("failure" in one for one in results.values["measurements"]) else 0


if __name__ == "__main__":
    sys.exit(main())

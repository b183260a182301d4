"""A group whose members live in processes of the load generator: who owns what, and since when."""

import json
import queue
import subprocess
import threading
import time

from .client import Failed
from .processes import end_with_parent

# A group is stable when its partitions have had one owner each for this long: three heartbeats. That time is not
# part of any figure: what counts is when the last change came.
SETTLED_SECONDS = 1.5


class Members:
    """One process; everything that happens to its members goes to `events`."""

    def __init__(self, command, events):
        self.events = events
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        self.started_at = None
        # When the last of them had subscribed, and begun to leave.
        self.subscribed_at = None
        self.left_at = None
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        for line in self.process.stdout:
            try:
                self.events.put((self, json.loads(line)))
            except ValueError:
                # Cut short by a kill.
                break
        self.events.put((self, {"event": "ended", "at": time.time()}))

    def kill(self):
        """Without a word; returns when that was."""
        at = time.time()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        return at

    def leave(self):
        """Has all members say goodbye; the process ends then."""
        self.process.stdin.close()


class Group:
    """What the members' processes have told, in the order in which it came."""

    def __init__(self, program, bootstrap, topic, partitions, name, *options):
        self.command = [program, "members", "--bootstrap", bootstrap, "--topic", topic, "--group", name, *options]
        self.name = name
        self.partitions = set(range(partitions))
        self.events = queue.SimpleQueue()
        self.processes = []
        self.gone = set()
        self.owned = {}
        # When somebody's share changed last.
        self.changed_at = 0.0
        # Of each member: when the first commit was acknowledged that it sent after `watched_since`.
        self.acknowledged = {}
        self.watched_since = float("inf")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()

    def add(self, count):
        """More members, at once."""
        process = Members([str(part) for part in (*self.command, "--count", count)], self.events)
        self.processes.append(process)
        return process

    def lose(self, process):
        """From here on its members own nothing, whatever it still says."""
        self.gone.add(process)
        self.owned = {key: share for key, share in self.owned.items() if key[0] is not process}

    def is_stable(self, members):
        """Each partition has one owner, and each member has some."""
        shares = list(self.owned.values())
        return (
            len(shares) == members
            and all(shares)
            and sum(map(len, shares)) == len(self.partitions)
            and set().union(*shares) == self.partitions
        )

    def await_stable(self, members, patience):
        """Returns when the last change came that made the group stable."""
        self.wait(
            lambda: self.is_stable(members) and time.time() - self.changed_at > SETTLED_SECONDS,
            patience,
            lambda: f"{self.name} is not stable: {self.describe()}, {members} members were expected",
        )
        return self.changed_at

    def describe(self):
        shares = list(self.owned.values())
        return f"{sum(map(bool, shares))} members own {sum(map(len, shares))} of {len(self.partitions)} partitions"

    def wait(self, condition, patience, complaint):
        """Takes in events until the condition holds."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(complaint())
            self.take(0.05)

    def take(self, timeout):
        try:
            process, event = self.events.get(timeout=timeout)
        except queue.Empty:
            return
        kind, at = event["event"], event["at"]
        key = (process, event.get("member"))
        if kind == "starting":
            process.started_at = at
        elif kind == "subscribed":
            process.subscribed_at = at
        elif kind == "leaving":
            process.left_at = process.left_at or at
        elif process in self.gone:
            pass
        elif kind == "assigned":
            self.owned.setdefault(key, set()).update(event["partitions"])
            self.changed_at = at
        elif kind == "revoked":
            self.owned.setdefault(key, set()).difference_update(event["partitions"])
            self.changed_at = at
        elif kind == "committed":
            if event["refused"] is None and event["sent"] >= self.watched_since:
                self.acknowledged.setdefault(key, at)
        elif kind == "failed":
            raise Failed(f"a member of {self.name} failed: {event['why']}")
        else:
            raise Failed(f"members of {self.name} have gone")

    def watch_commits(self, since):
        """From here on `acknowledged` is about commits that were sent after this moment."""
        self.acknowledged.clear()
        self.watched_since = since

    def settle(self):
        """Lets what is under way happen."""
        end = time.monotonic() + SETTLED_SECONDS
        while time.monotonic() < end:
            self.take(0.05)

    def dissolve(self, patience):
        """All leave; who does not is ended."""
        for process in self.processes:
            self.lose(process)
            if not process.process.stdin.closed:
                process.leave()
        deadline = time.monotonic() + patience
        for process in self.processes:
            try:
                process.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

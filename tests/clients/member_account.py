"""What a member of a group tells of itself, and what it knows of its commits (`group_member.py`)."""

import json
import sys


def tell(name, **fields):
    """Standard output is read line by line, and complete even if the process is killed then."""
    sys.stdout.write(json.dumps({"name": name, **fields}) + "\n")
    sys.stdout.flush()


class Account:
    """What one member has read and does not know to be committed. A place is (topic, partition)."""

    def __init__(self, group, commit):
        self._group = group
        # What the client commits by itself it does not tell of.
        self._tells = commit != "auto"
        self.pending = {}
        # What was asked for without waiting and is not answered yet.
        self._asked = {}
        # Of that, what a later commit has overtaken: (place, offset) -> how far that one went. It outlives the assignment.
        self._overtaken = {}

    def assigned(self, places):
        places = list(places)
        self._give_up(places)
        self._tell_places("partitions_assigned", places)

    def revoked(self, places):
        places = list(places)
        self._give_up(places)
        self._tell_places("partitions_revoked", places)

    def read(self, topic, partition, offset, value):
        self.pending[topic, partition] = offset + 1
        tell("record_data", group=self._group, topic=topic, partition=partition, offset=offset, value=value.decode())

    def to_ask(self):
        """What is to be committed without waiting: one request at a time, for one that the client sends again could
        overtake a later one."""
        if not self._asked:
            self._asked = dict(self.pending)
            return dict(self.pending)
        return {}

    def committed(self, offsets):
        """`offsets` by place are acknowledged; those that a later commit has overtaken are told as such."""
        late = {entry: self._overtaken.pop(entry) for entry in offsets.items() if entry in self._overtaken}
        if late:
            # Of a place that was not given away it is still outstanding.
            self._answered(self._asked, dict(late.keys()))
            self._tell_overtaken(late)
        offsets = dict(offsets.items() - late.keys())
        if not offsets:
            return
        for place, offset in offsets.items():
            # One request at a time is not waited for: what goes further than that was asked for later.
            if self._asked.get(place, offset) < offset:
                self._overtaken[place, self._asked[place]] = offset
        for known in (self.pending, self._asked):
            self._answered(known, offsets)
        self._tell_commit(offsets, success=True)

    def refused(self, offsets, error):
        for entry in offsets.items():
            self._overtaken.pop(entry, None)
        self._answered(self._asked, offsets)
        self._tell_commit(offsets, success=False, error=str(error))

    @staticmethod
    def _answered(known, offsets):
        for place, offset in offsets.items():
            if known.get(place) == offset:
                del known[place]

    def forget(self, places):
        """These cannot be committed: their topic is gone."""
        for place in places:
            self.pending.pop(place, None)
            self._asked.pop(place, None)

    def _give_up(self, places):
        left = {place: self.pending[place] for place in places if place in self.pending}
        if left and self._tells:
            self._tell_commit(left, success=False, error="given up unanswered")
        self.forget(places)

    def _tell_places(self, name, places):
        tell(name, group=self._group, partitions=[{"topic": topic, "partition": at} for topic, at in places])

    def _tell_overtaken(self, late):
        told = [
            {"topic": topic, "partition": at, "offset": offset, "overtaken_by": end}
            for ((topic, at), offset), end in late.items()
        ]
        tell("commit_overtaken", group=self._group, offsets=told)

    def _tell_commit(self, offsets, **outcome):
        told = [{"topic": topic, "partition": at, "offset": offset} for (topic, at), offset in offsets.items()]
        tell("offsets_committed", group=self._group, offsets=told, **outcome)

"""What a group's consumers may rely on, checked against what was produced, delivered and committed.

1. A committed offset is never lost and never moves backwards.
2. Every record is delivered at least once.
3. It is delivered exactly once where members commit and stop cleanly; and in every case at most one delivery of a
   record is followed by an acknowledged commit of it: what somebody has finished nobody gets again.

A client may break the first by itself: it sends a commit that it did not wait for again, after a later one, and goes back
to what that says (`History.overtaken`). Then just the records between the two may be finished once more.

A place is (topic, partition). Values are unique; they name the records.
"""

import collections
import dataclasses
import enum
import threading


class Fate(enum.Enum):
    """What the member that got a record was told of its commit."""

    OPEN = "not answered"
    REFUSED = "refused"
    ACKNOWLEDGED = "acknowledged"


@dataclasses.dataclass
class Delivery:
    """A record in a member's hands."""

    member: str
    # Which of the member's assignments of the place it came in.
    tenure: int = 0
    fate: Fate = Fate.OPEN


class History:
    """What happened to one group. Its methods may be called from several threads.

    `may_start_over` where the client itself begins anew while its coordinator moves, and commits that: then only the loss
    of a commit is one. `may_commit_backwards` where commits that were overtaken are excused.
    """

    def __init__(self, may_start_over=False, may_commit_backwards=False):
        self._may_start_over = may_start_over
        self._may_commit_backwards = may_commit_backwards
        self._lock = threading.Lock()
        self._places = {}
        self._unwanted = set()
        self._optional = set()
        self._ends = collections.Counter()
        self._deliveries = collections.defaultdict(list)
        # Of each member: by place, the deliveries (offset, delivery) that no commit has covered yet.
        self._open = collections.defaultdict(lambda: collections.defaultdict(list))
        self._tenures = collections.Counter()
        self._floor = {}
        self._seen = {}
        self._undelivered = set()
        # By place: the commits (offset, how far the later one went) that were overtaken, and every offset acknowledged.
        self._overtaken = collections.defaultdict(set)
        self._acknowledged = collections.defaultdict(set)
        # Where the coordinator went back: place, what was committed, what it said (-1 for nothing). Whether that is excused
        # may be told later.
        self._steps_back = []
        self.commits = 0
        self.refusals = 0

    # What happens.

    def produced(self, value, place, offset, optional=False, unwanted=False):
        """A record was acknowledged, at an offset that may be unknown (of a duplicate the producer is not told it).
        One that is `optional` need not be delivered, one that is `unwanted` must not."""
        with self._lock:
            self._places[value] = (place, offset)
            if offset is not None:
                self._ends[place] = max(self._ends[place], offset + 1)
            if unwanted:
                self._unwanted.add(value)
            elif optional:
                self._optional.add(value)
            elif value not in self._deliveries:
                self._undelivered.add(value)

    def delivered(self, member, value, place=None, offset=None):
        """A member got a record; some members tell nothing but its value."""
        with self._lock:
            known = self._deliveries[value]
            # Nothing is known of the assignments of who tells no place: each delivery counts as one.
            delivery = Delivery(member, len(known) if place is None else self._tenures[member, place])
            known.append(delivery)
            self._undelivered.discard(value)
            if place is not None:
                self._open[member][place].append((offset, delivery))

    def assigned(self, member, places):
        """A member got these places: what it read of them before is none of its business any more."""
        with self._lock:
            for place in places:
                self._open[member].pop(place, None)
                self._tenures[member, place] += 1

    revoked = assigned

    def committed(self, member, offsets, acknowledged):
        """A member was told what became of its commit of `offsets`, by place."""
        fate = Fate.ACKNOWLEDGED if acknowledged else Fate.REFUSED
        with self._lock:
            self.commits += acknowledged
            self.refusals += not acknowledged
            for place, offset in offsets.items():
                held = self._open[member][place]
                for _, delivery in (entry for entry in held if entry[0] < offset):
                    delivery.fate = fate
                if acknowledged:
                    # What was refused may be committed yet.
                    self._open[member][place] = [entry for entry in held if entry[0] >= offset]
                    self._floor[place] = max(self._floor.get(place, 0), offset)
                    self._acknowledged[place].add(offset)

    def overtaken(self, place, offset, end):
        """A member did not wait for its commit of `offset`, and was told that it is done after that of the later one to
        `end`: what is committed may have gone back."""
        with self._lock:
            self.commits += 1
            if self._may_commit_backwards:
                self._overtaken[place].add((offset, end))

    def forget(self, topic):
        """A topic is deleted, and with it what was committed."""
        with self._lock:
            for known in (self._floor, self._seen):
                for place in [place for place in known if place[0] == topic]:
                    del known[place]

    # What is asked of the coordinator.

    def floor(self):
        """Under which no offset may be that is asked for from now on."""
        with self._lock:
            return dict.fromkeys(self._floor, 0) if self._may_start_over else dict(self._floor)

    def observed(self, floor, offsets):
        """The coordinator named `offsets` by place (-1 for none), asked after `floor` was taken."""
        with self._lock:
            for place, offset in offsets.items():
                least = floor.get(place)
                # A topic may have been deleted since.
                if least is not None and place in self._floor and offset < least:
                    self._steps_back.append((place, least, offset))
                if offset >= 0:
                    self._floor[place] = max(self._floor.get(place, 0), offset)
            self._seen = dict(offsets)

    # What is waited for.

    def seen(self):
        """The committed offsets as the coordinator named them last."""
        with self._lock:
            return dict(self._seen)

    def acknowledged(self):
        """The highest offset of each place that is known to be committed."""
        with self._lock:
            return dict(self._floor)

    def undelivered(self):
        """The values that somebody must get yet."""
        with self._lock:
            return set(self._undelivered)

    def ends(self):
        """Behind the last record that was produced, by place."""
        with self._lock:
            return dict(self._ends)

    def has_begun(self):
        """Whether somebody got something."""
        with self._lock:
            return bool(self._deliveries)

    # The judgement.

    def violations(self, exactly_once, is_over=True):
        """What broke a promise, in words; `exactly_once` where every member committed and stopped cleanly, `is_over` where
        there was time to deliver everything."""
        with self._lock:
            found = [
                f"{place}: committed was {least}, then the coordinator said {'nothing' if offset < 0 else offset}"
                for place, least, offset in self._steps_back
                if not self._is_excused(place, least, offset)
            ]
            if is_over:
                found += [f"record {value} at {self._places[value]} was never delivered" for value in self._undelivered]
            for value, deliveries in self._deliveries.items():
                place = self._places.get(value)
                if place is None:
                    found.append(f"record {value} was delivered and never produced")
                elif value in self._unwanted:
                    found.append(f"record {value} at {place} was delivered to {deliveries[0].member}, behind its start")
                told = ", ".join(f"{delivery.member} ({delivery.fate.value})" for delivery in deliveries)
                if self._may_start_over:
                    continue
                allowed = 1 + self._excused_repeats(place)
                if len(self._owners(deliveries, Fate.ACKNOWLEDGED)) > allowed:
                    found.append(f"record {value} at {place} was finished more than once: {told}")
                elif exactly_once and len(self._owners(deliveries, Fate.ACKNOWLEDGED, Fate.OPEN)) > allowed:
                    found.append(f"record {value} at {place} was delivered more than once: {told}")
            return sorted(found)

    def _is_excused(self, place, least, offset):
        """Whether `offset` after `least` is what a commit that was overtaken went back to, or one on the way from there to
        where the group had been."""
        return any(
            start < least <= end and (offset == start or (start < offset and offset in self._acknowledged[place]))
            for start, end in self._overtaken[place]
        )

    def _excused_repeats(self, where):
        """How many commits that were overtaken have made the group get the record again that is `where`."""
        if where is None:
            return 0
        place, at = where
        return sum(at is not None and start <= at < end for start, end in self._overtaken[place])

    @staticmethod
    def _owners(deliveries, *fates):
        """In whose assignments it was delivered with one of these fates. A client that repeats a record within one, as
        when the partition's leader dies, does so by itself: nobody else got it."""
        return {(delivery.member, delivery.tenure) for delivery in deliveries if delivery.fate in fates}

    def summary(self):
        """Figures for a line of evidence."""
        with self._lock:
            counts = [len(deliveries) for deliveries in self._deliveries.values()]
            return {
                "records": len(self._places) - len(self._unwanted),
                "twice": sum(count > 1 for count in counts),
                "commits": self.commits,
                "refused": self.refusals,
                "excused": sum(
                    self._excused_repeats(self._places.get(value)) > 0
                    for value, deliveries in self._deliveries.items()
                    if len(deliveries) > 1
                ),
            }

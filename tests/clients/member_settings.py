"""How a member of a group reads, in whatever client (`group_member.py`)."""

import dataclasses

# Seconds that a commit is tried again before partitions are given away.
COMMIT_PATIENCE = 30.0
# Seconds that a poll waits for records.
POLL = 0.1
# Records that are read before they are committed.
BATCH = 100
# How often topics are looked at, in milliseconds.
REFRESH_MS = 500


@dataclasses.dataclass
class Settings:
    """How a member reads."""

    bootstrap: str
    topics: list
    # Each of them is one more group that this process is a member of; only aiokafka has more than one.
    groups: list
    # sync: after each batch; async: likewise, without waiting; auto: the client's own way.
    commit: str = "sync"
    # earliest, latest or none.
    reset: str = "earliest"
    # The name that the assignor has on the wire; the server's where the protocol is `consumer`.
    assignor: str = "range"
    protocol: str = "classic"
    # Of the classic protocol; in the other one it is the broker's business.
    session_timeout_ms: int = 30_000
    # The name of a static member.
    instance: str | None = None

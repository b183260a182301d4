#!/usr/bin/env python3
"""A member of a group with one of the Python clients: a process of its own, which can be killed and stopped.

    group_member.py CLIENT SETTINGS

Tells on standard output what happens to it, one JSON object a line, in the words of kafka-verifiable-consumer:
partitions_assigned, partitions_revoked, record_data, offsets_committed, shutdown_complete; reset_refused where there is
neither a committed offset nor a policy for that; and commit_overtaken where a commit that was not waited for is
acknowledged after a later one (`overtaken_by`: its offset). A record is told before it is committed. SIGTERM ends it in
order: what was read is committed, and the group left. SETTINGS is JSON, with the names of `Settings`.
"""

import importlib
import json
import os
import sys
import threading

from member_account import tell
from member_settings import Settings

_MODULES = {"confluent": "member_confluent", "kafka-python": "member_kafka_python", "aiokafka": "member_aiokafka"}


def end_with_the_parent():
    """Standard input ends when the test does, however that came."""

    def wait():
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main():
    end_with_the_parent()
    # Only this one: each takes its time to load.
    client = importlib.import_module(_MODULES[sys.argv[1]])
    client.Client(Settings(**json.loads(sys.argv[2]))).run()
    tell("shutdown_complete")


if __name__ == "__main__":
    main()

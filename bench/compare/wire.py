"""Single requests as bytes on a socket, for what a client library does not show: which APIs a broker has, who
coordinates a group, and how soon a commit is taken again by somebody who does nothing but ask."""

import socket
import struct
import threading
import time

OFFSET_COMMIT, FIND_COORDINATOR, API_VERSIONS = 8, 10, 18
CONSUMER_GROUP_HEARTBEAT = 68
# Between two attempts of a probe.
PAUSE_SECONDS = 0.01


class Refused(Exception):
    """The broker answered with an error, or with less than an answer."""


def ask(address, key, version, body, patience):
    """The body of the answer to one request, on a connection of its own."""
    header = struct.pack(">hhih", key, version, 1, -1)
    with socket.create_connection(address, timeout=patience) as connection:
        connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        size = struct.unpack(">i", receive(connection, 4))[0]
        return receive(connection, size)[4:]


def receive(connection, size):
    data = b""
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise Refused("the connection was closed")
        data += more
    return data


def string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def advertised(address):
    """Keys of the APIs that a broker has."""
    answer = ask(address, API_VERSIONS, 0, b"", patience=10)
    error, count = struct.unpack_from(">hi", answer)
    if error:
        raise Refused(f"ApiVersions: error {error}")
    return {struct.unpack_from(">h", answer, 6 + 6 * i)[0] for i in range(count)}


def find_coordinator(address, group, patience=10):
    """Node id and address of the broker that coordinates a group."""
    answer = ask(address, FIND_COORDINATOR, 0, string(group), patience)
    error, node, length = struct.unpack_from(">hih", answer)
    if error:
        raise Refused(f"FindCoordinator: error {error}")
    host = answer[8 : 8 + length].decode()
    return node, (host, struct.unpack_from(">i", answer, 8 + length)[0])


def commit(address, group, topic, offset, patience=10):
    """Commits for partition 0, as somebody who is no member."""
    body = string(group) + struct.pack(">i", -1) + string("") + struct.pack(">q", -1)
    body += struct.pack(">i", 1) + string(topic) + struct.pack(">iiqh", 1, 0, offset, -1)
    answer = ask(address, OFFSET_COMMIT, 2, body, patience)
    if error := struct.unpack_from(">h", answer, len(answer) - 2)[0]:
        raise Refused(f"OffsetCommit: error {error}")


def partition_of(group, partitions):
    """The partition of __consumer_offsets that a group belongs to: Java's hash of its name."""
    value = 0
    for character in group:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return (value & 0x7FFFFFFF) % partitions


def neighbour(group, partitions):
    """The name of another group with the same coordinator."""
    wanted = partition_of(group, partitions)
    return next(name for i in range(100_000) if partition_of(name := f"probe-{i}", partitions) == wanted)


class Probe(threading.Thread):
    """Asks all the time, until a commit that began after `start` is acknowledged."""

    def __init__(self, addresses, group, topic, patience):
        super().__init__(daemon=True)
        self.addresses, self.group, self.topic = addresses, group, topic
        self.deadline = time.monotonic() + patience
        self.acknowledged_at = None
        self.last_refusal = None

    def run(self):
        while time.monotonic() < self.deadline:
            for address in self.addresses:
                try:
                    _, coordinator = find_coordinator(address, self.group, patience=1)
                    commit(coordinator, self.group, self.topic, 1, patience=1)
                    self.acknowledged_at = time.time()
                    return
                except (OSError, Refused, struct.error) as failure:
                    self.last_refusal = failure
            time.sleep(PAUSE_SECONDS)

"""Single requests, as bytes on a socket, to one broker: for what no client library would send."""

import socket
import struct
import time

from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

# Generous: the machine may have more to do than this.
_PATIENCE = 120.0
_CRC_AT, _ATTRIBUTES_AT = 17, 21


class Closed(Exception):
    """The broker closed the connection instead of answering."""


class NoAnswer(Exception):
    """The broker neither answered nor closed the connection."""


class Wire:
    """A broker's client port; every request has a connection of its own."""

    def __init__(self, bootstrap):
        host, port = bootstrap.split(",")[0].rsplit(":", 1)
        self._address = (host, int(port))

    def ask(self, request, patience=_PATIENCE):
        """Sends one request of kafka.protocol and returns the decoded answer."""
        request.with_header(correlation_id=7, client_id="wire")
        with socket.create_connection(self._address, timeout=patience) as connection:
            connection.sendall(request.encode(header=True, framed=True))
            body = self._receive(connection, struct.unpack(">i", self._receive(connection, 4))[0])
        # An answer in another version than the request's: only ApiVersions does that.
        answer = request.header.get_response_class()
        return answer.decode(body, header=True)

    @staticmethod
    def _receive(connection, size):
        data = b""
        while len(data) < size:
            try:
                more = connection.recv(size - len(data))
            except ConnectionResetError:
                more = b""
            except TimeoutError:
                raise NoAnswer from None
            if not more:
                raise Closed
            data += more
        return data


def batch(
    values=(b"v",), key=b"k", producer_id=-1, epoch=-1, sequence=-1, attributes=0, timestamp=None, magic=2, codec=0
):
    """A record batch; `attributes` are added to those that the codec gives."""
    builder = DefaultRecordBatchBuilder(2, codec, False, producer_id, epoch, sequence, 10_000_000)
    stamp = int(time.time() * 1000) if timestamp is None else timestamp
    for offset, value in enumerate(values):
        builder.append(offset, timestamp=stamp, key=key, value=value, headers=[])
    data = bytearray(builder.build())
    if magic != 2:
        data[16] = magic
    if attributes:
        before = struct.unpack_from(">h", data, _ATTRIBUTES_AT)[0]
        struct.pack_into(">h", data, _ATTRIBUTES_AT, before | attributes)
        seal(data)
    return data


def seal(data):
    """Makes a changed batch's checksum right again."""
    struct.pack_into(">I", data, _CRC_AT, calc_crc32c(bytes(data[_ATTRIBUTES_AT:])))
    return data

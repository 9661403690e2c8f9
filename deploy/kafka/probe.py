"""Asks a broker, in Kafka's own protocol, which brokers it knows: an open port says nothing, this answer says that it serves.

Only what starting needs, on a plain listener: one request, one answer, no retries.
"""

import socket
import struct

METADATA = 3
"""The request's number (https://kafka.apache.org/protocol#The_Messages_Metadata); version 1 has a fixed, untagged layout."""


def known_brokers(host: str, port: int, within: float = 2.0) -> frozenset[int]:
    """The node ids of the brokers that the broker at this address takes for alive.

    Raises:
        OSError: Nobody answers there within so many seconds, or the connection broke.
    """
    with socket.create_connection((host, port), timeout=within) as connection:
        client = b"prela-probe"
        no_topics = struct.pack(">i", 0)
        request = struct.pack(f">hhih{len(client)}s", METADATA, 1, 1, len(client), client) + no_topics
        connection.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", _exactly(connection, 4))
        answer = _exactly(connection, size)
    return _brokers(answer)


def _brokers(answer: bytes) -> frozenset[int]:
    (count,) = struct.unpack_from(">i", answer, 4)  # behind the correlation id
    at, found = 8, set()
    for _ in range(count):
        node, host_size = struct.unpack_from(">ih", answer, at)
        found.add(node)
        at += 6 + host_size + 4  # the host, then its port
        (rack_size,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(rack_size, 0)  # -1 is null
    return frozenset(found)


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionError(f"expected {size} bytes from the broker, it closed after {len(parts)}")
        parts += part
    return bytes(parts)

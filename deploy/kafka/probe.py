"""The few questions that starting a cluster has for a broker, in Kafka's own protocol: who is alive, and may this user do that.

An open port proves nothing; an answer proves that the broker serves. One request per connection, on a plain listener,
no retries.
Layouts: https://kafka.apache.org/protocol; the versions asked for are the last without tagged fields.
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

METADATA, DESCRIBE_ACLS, CREATE_ACLS = 3, 29, 30
RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional_id": 5}
OPERATIONS = {
    "all": 2, "read": 3, "write": 4, "create": 5, "delete": 6, "alter": 7, "describe": 8,
    "describe_configs": 10, "alter_configs": 11, "idempotent_write": 12,
}  # fmt: skip
ALLOW = 3
LITERAL, PREFIXED = 3, 4


@dataclass(frozen=True, kw_only=True)
class Acl:
    """A right: this user may do this to that.

    Args:
        user: The principal's name, without `User:`.
        resource: One of RESOURCES.
        name: The resource's name; `kafka-cluster` for the cluster. A `*` at its end makes it a prefix.
        operation: One of OPERATIONS.
    """

    user: str
    resource: str
    name: str
    operation: str

    def __post_init__(self) -> None:
        for value, known in ((self.resource, RESOURCES), (self.operation, OPERATIONS)):
            if value not in known:
                raise ValueError(f"expected one of {sorted(known)}; came {value!r}: name one of those")

    def encoded(self) -> bytes:
        """As CreateAcls and DescribeAcls write it."""
        prefixed = self.name.endswith("*")
        return (
            struct.pack(">b", RESOURCES[self.resource])
            + _string(self.name.removesuffix("*"))
            + struct.pack(">b", PREFIXED if prefixed else LITERAL)
            + _string(f"User:{self.user}")
            + _string("*")
            + struct.pack(">bb", OPERATIONS[self.operation], ALLOW)
        )


def known_brokers(host: str, port: int, within: float = 2.0) -> frozenset[int]:
    """The node ids of the brokers that the broker at this address takes for alive.

    Raises:
        OSError: no broker answers there within so many seconds, or the connection broke.
    """
    no_topics = struct.pack(">i", 0)
    answer = _ask(host, port, METADATA, no_topics, within)
    found = set()
    for _ in range(answer.integer(">i")):
        found.add(answer.integer(">i"))
        answer.string()  # its host
        answer.integer(">i")  # its port
        answer.string()  # its rack
    return frozenset(found)


def create_acls(host: str, port: int, acls: Sequence[Acl], within: float = 10.0) -> None:
    """Give these permissions; `has_acl` reports whether a broker knows one.

    Raises:
        OSError: The broker did not answer, or refused.
    """
    body = struct.pack(">i", len(acls)) + b"".join(acl.encoded() for acl in acls)
    answer = _ask(host, port, CREATE_ACLS, body, within)
    answer.integer(">i")  # throttled for
    for _ in range(answer.integer(">i")):
        code, reason = answer.integer(">h"), answer.string()
        if code:
            raise OSError(f"expected the broker to create {acls}; it answered error {code}: {reason}")


def has_acl(host: str, port: int, acl: Acl, within: float = 10.0) -> bool:
    """Whether the broker at this address acts on this right already.

    Raises:
        OSError: The broker did not answer, or refused.
    """
    answer = _ask(host, port, DESCRIBE_ACLS, acl.encoded(), within)
    answer.integer(">i")  # throttled for
    code, reason = answer.integer(">h"), answer.string()
    if code:
        raise OSError(f"expected the broker to describe {acl}; it answered error {code}: {reason}")
    return answer.integer(">i") > 0


class _Answer:
    """The fields of an answer, one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def integer(self, layout: str) -> int:
        (value,) = struct.unpack_from(layout, self._content, self._at)
        self._at += struct.calcsize(layout)
        return int(value)

    def string(self) -> str | None:
        size = self.integer(">h")
        if size < 0:
            return None
        self._at += size
        return self._content[self._at - size : self._at].decode()

    @classmethod
    def read(cls, connection: socket.socket) -> Self:
        """Without the correlation id: there is one request a connection."""
        (size,) = struct.unpack(">i", _exactly(connection, 4))
        return cls(_exactly(connection, size)[4:])


def _ask(host: str, port: int, question: int, body: bytes, within: float) -> _Answer:
    with socket.create_connection((host, port), timeout=within) as connection:
        request = struct.pack(">hhi", question, 1, 1) + _string("prela-probe") + body
        connection.sendall(struct.pack(">i", len(request)) + request)
        return _Answer.read(connection)


def _string(value: str) -> bytes:
    return struct.pack(">h", len(value.encode())) + value.encode()


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionError(f"expected {size} bytes from the broker, it closed after {len(parts)}")
        parts += part
    return bytes(parts)

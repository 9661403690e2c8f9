"""Requests with tagged fields (KIP-482), as the newer versions of a request have them.

aiokafka 0.14 has a type for tagged fields, and 0.15 makes them a part of its schema. What is here works with both.
"""

from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import RequestHeader_v2, ResponseHeader_v1
from aiokafka.protocol.types import UnsignedVarInt32


class Tags(AbstractType[dict[int, bytes]]):
    """Tagged fields by number. Requests send none."""

    @classmethod
    def encode(cls, value: dict[int, bytes]) -> bytes:
        """Encode; the numbers ascend."""
        parts = [UnsignedVarInt32.encode(len(value))]
        for number, content in sorted(value.items()):
            parts += [UnsignedVarInt32.encode(number), UnsignedVarInt32.encode(len(content)), content]
        return b"".join(parts)

    @classmethod
    def decode(cls, data: BytesIO) -> dict[int, bytes]:
        """Decode all of them; a newer broker may send fields that this client does not know."""
        found = {}
        for _ in range(UnsignedVarInt32.decode(data)):
            number = UnsignedVarInt32.decode(data)
            found[number] = data.read(UnsignedVarInt32.decode(data))
        return found


class Flexible:
    """Mixin of a request whose header and whose answer's header have tagged fields; it precedes `RequestStruct`."""

    FLEXIBLE_VERSION = True

    def build_request_header(self, correlation_id: int, client_id: str) -> RequestHeader_v2:
        """As in `RequestStruct`, whose 0.15 derives this from the schema."""
        request: Any = self
        return RequestHeader_v2(request, correlation_id=correlation_id, client_id=client_id)

    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v1:
        """As in `RequestStruct`."""
        return ResponseHeader_v1.decode(read_buffer)

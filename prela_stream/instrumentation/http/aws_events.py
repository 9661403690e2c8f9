"""Decodes `application/vnd.amazon.eventstream`, the format in which Amazon Bedrock streams the answers of models.

A message is: total length, length of the headers and their CRC-32 (4 bytes each), the headers, the payload, a CRC-32 of all of
it. Source: the Amazon event stream specification (smithy.io, `aws/amazon-eventstream`).
"""

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from typing import Final

from prela_stream.instrumentation.http.sse import StreamEvent

_PRELUDE: Final = struct.Struct(">III")
_CHECKSUM_BYTES: Final = 4
_MAX_MESSAGE_BYTES: Final = 24 * 1024 * 1024
"""The largest message that the specification allows: 16 MiB of payload and the headers."""
_FIXED_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Size of a header's value by its type; the types 6 (bytes) and 7 (text) start with their length instead."""
_TEXT: Final = 7


class AwsEventDecoder:
    """Turns bytes into events. The event inside a Bedrock `chunk` is unwrapped; an exception becomes an event named `error`."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """Yield the events that end within this chunk. Raises ValueError if the bytes are not such a stream."""
        self._rest += chunk
        while len(self._rest) >= _PRELUDE.size:
            total, headers_size, checksum = _PRELUDE.unpack_from(self._rest)
            if (
                checksum != binascii.crc32(bytes(self._rest[:8]))
                or not 16 + headers_size <= total <= _MAX_MESSAGE_BYTES
            ):
                msg = "an AWS event stream has a message whose prelude does not match its checksum"
                raise ValueError(msg)
            if len(self._rest) < total:
                return
            message = bytes(self._rest[:total])
            del self._rest[:total]
            headers_end = _PRELUDE.size + headers_size
            headers = _text_headers(message[_PRELUDE.size : headers_end])
            yield _event(headers, message[headers_end:-_CHECKSUM_BYTES])


def _text_headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name, kind = data[at + 1 : name_end].decode(), data[name_end]
        at = name_end + 1
        size = _FIXED_SIZES.get(kind)
        if size is None:
            size = int.from_bytes(data[at : at + 2])
            at += 2
        if kind == _TEXT:
            found[name] = data[at : at + size].decode()
        at += size
    return found


def _event(headers: dict[str, str], payload: bytes) -> StreamEvent:
    kind = headers.get(":exception-type") or headers.get(":error-code")
    if kind is not None:
        message = _field(payload, "message") or headers.get(":error-message") or payload.decode(errors="replace")
        error = {"type": "error", "error": {"type": kind, "message": message}}
        return StreamEvent("error", json.dumps(error).encode())
    name = headers.get(":event-type")
    wrapped = _field(payload, "bytes") if name == "chunk" else None
    return StreamEvent(name, payload if wrapped is None else base64.b64decode(wrapped))


def _field(payload: bytes, name: str) -> str | None:
    try:
        found = json.loads(payload)[name]
    except (ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None

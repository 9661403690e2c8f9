"""Decodes the body of a streamed answer, whatever its content type is.

The request decides that an answer is a stream; its first bytes decide the format. Gateways send server-sent events as
`application/octet-stream`, and some ignore `stream: true` and answer with one JSON document.
"""

from collections.abc import Iterator
from typing import Final

from prela_stream.instrumentation.http.aws_events import AwsEventDecoder
from prela_stream.instrumentation.http.sse import SseDecoder, StreamEvent

_LEADING: Final = b" \t\r\n\xef\xbb\xbf"


class EventDecoder:
    """Turns the bytes of a streamed answer into events, or keeps them if they are one JSON document."""

    def __init__(self) -> None:
        self._decoder: SseDecoder | AwsEventDecoder | None = None
        self._document: list[bytes] = []
        self._is_document = False

    @property
    def document(self) -> bytes | None:
        """The whole body if it is a JSON document instead of a stream of events; None otherwise."""
        return b"".join(self._document) if self._is_document else None

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """Yield the events that end within this chunk. Raises ValueError if the rest of the body cannot be decoded."""
        if self._is_document:
            self._document.append(chunk)
            return
        if self._decoder is None:
            self._document.append(chunk)
            chunk = b"".join(self._document)
            start = chunk.lstrip(_LEADING)[:1]
            if not start or start == b"{":
                self._is_document = bool(start)
                return
            self._document.clear()
            self._decoder = AwsEventDecoder() if start == b"\0" else SseDecoder()
        yield from self._decoder.feed(chunk)

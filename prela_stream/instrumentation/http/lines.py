"""Decodes a body of JSON Lines from bytes that arrive in arbitrary pieces."""

from collections.abc import Iterator

from prela_stream.instrumentation.http.sse import StreamEvent


class LineDecoder:
    """Turns each line that is not blank into an event without a name."""

    document: bytes | None = None
    """As `EventDecoder.document`: a body of one line is a body of lines too."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """The pieces of a line that is not complete. They are joined once."""

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """Yield the lines that end within this chunk."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._rest.append(piece)
            yield from self.flush()
        if rest:
            self._rest.append(rest)

    def flush(self) -> Iterator[StreamEvent]:
        """Yield the last line, which may have no line feed, after the whole body was fed."""
        line = b"".join(self._rest).strip()
        self._rest.clear()
        if line:
            yield StreamEvent(None, line)

"""Decodes server-sent events from bytes that arrive in arbitrary pieces: the name and the data of each event, nothing else."""

from collections.abc import Iterator
from typing import Final, NamedTuple

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class StreamEvent(NamedTuple):
    """One event of a streamed answer, not yet read as JSON."""

    name: str | None
    """The `event` field; None if the event has none. A heartbeat of a proxy usually has none."""
    data: bytes


class SseDecoder:
    """Turns bytes into events. Lines end with LF, CR LF or CR, as the HTML standard allows."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """The pieces of a line that is not complete. They are joined once: a line may have megabytes."""
        self._name: str | None = None
        self._data: list[bytes] = []
        self._at_start = True
        self._ends_with_cr = False

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """Yield the events that end within this chunk. An event ends with an empty line."""
        for line in self._lines(chunk):
            if not line:
                if self._data or self._name:
                    event = StreamEvent(self._name, b"\n".join(self._data))
                    self._name, self._data = None, []
                    yield event
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                self._data.append(value)
            elif field == b"event":
                self._name = value.decode(errors="replace") or None

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The complete lines. A CR ends its line at once, and an LF directly behind it ends no other line."""
        if not chunk:
            return []
        if self._ends_with_cr:
            chunk = chunk.removeprefix(b"\n")
        self._ends_with_cr = chunk.endswith(b"\r")
        self._rest.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk:
            return []
        text = b"".join(self._rest)
        if self._at_start and len(text) >= len(_BYTE_ORDER_MARK):
            text = text.removeprefix(_BYTE_ORDER_MARK)
            self._at_start = False
        lines = text.splitlines(keepends=True)
        self._rest = [lines.pop()] if lines and not lines[-1].endswith((b"\n", b"\r")) else []
        return [line.rstrip(b"\r\n") for line in lines]

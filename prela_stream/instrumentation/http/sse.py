"""Server-sent events out of bytes that come in arbitrary pieces: only what the model APIs use, the `data` of each event."""

from typing import Any, Final

import msgspec

_event: Final = msgspec.json.Decoder(dict[str, Any])


class EventParser:
    """Feed it bytes, get the JSON objects of the events that became whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The events that end within this chunk; raises msgspec.DecodeError if the data of one is no JSON object."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            stripped = line.rstrip(b"\r")
            if stripped.startswith(b"data:"):
                self._data.append(stripped[5:].strip())
            elif not stripped and self._data:
                data, self._data = b"\n".join(self._data), []
                events.append(_event.decode(data))
        return events

"""The seam between the SDK and the pipeline behind it: where encoded items go, under which rules, and which spans are open."""

import weakref
from typing import Any, Final, Protocol

import msgspec

from prela_stream.sdk.encoding import DEFAULT_LIMIT
from prela_stream.sdk.privacy import Privacy, content_scope

SMALL: Final = 256
"""Bytes of an item in which no media is looked for: what stood in its place would take as much room."""


class Recorder(Protocol):
    """Takes items of the `spans` topic. The SDK calls it from any thread and any event loop."""

    def record(self, trace_id: bytes, item: bytes, *, reserved: bool = False) -> None:
        """Take an encoded item. O(1), never awaits, never raises; what cannot be kept is counted by the recorder.

        Args:
            trace_id: 16 raw bytes; decides the partition.
            item: MessagePack bytes as `codec.encode_item` makes them; immutable, owned by nobody.
            reserved: A root or a control item (START, HEARTBEAT, …): may use the room kept for them.
        """


class Outlet:
    """What the spans of a tracer share: the recorder of this moment, size limit, privacy, the spans to send heartbeats for."""

    __slots__ = ("_max_item_bytes", "_privacy", "look_above", "open_spans", "recorder")

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        """None: spans work, but go nowhere."""
        self.open_spans: Final[dict[bytes, weakref.ref[Any]]] = {}
        """Roots and AGENT spans that have not ended, by span id; weak, so that a forgotten span is not kept alive."""
        self.look_above = SMALL
        """Items of more bytes go through `encoding.settle` before they are recorded."""
        self._max_item_bytes = DEFAULT_LIMIT
        self._privacy = Privacy()

    @property
    def max_item_bytes(self) -> int:
        """Larger items are cut to this size."""
        return self._max_item_bytes

    @max_item_bytes.setter
    def max_item_bytes(self, size: int) -> None:
        self._max_item_bytes = size

    @property
    def privacy(self) -> Privacy:
        """What is taken out of every span."""
        return self._privacy

    @privacy.setter
    def privacy(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self.look_above = -1 if privacy.is_active else SMALL

    def in_scope(self) -> "Outlet | ScopedOutlet":
        """The outlet for a span that begins now: another one inside of `capture_content()`."""
        scope = content_scope.get()
        return self if scope is None else ScopedOutlet(self, capture_content=scope)


class ScopedOutlet:
    """An outlet for a span whose content is recorded, or not, whatever its process was set to."""

    __slots__ = ("_base", "_capture_content")
    look_above: Final = -1

    def __init__(self, base: Outlet, *, capture_content: bool) -> None:
        self._base = base
        self._capture_content = capture_content

    @property
    def recorder(self) -> Recorder | None:
        """As the one below."""
        return self._base.recorder

    @property
    def open_spans(self) -> dict[bytes, "weakref.ref[Any]"]:
        """As the one below."""
        return self._base.open_spans

    @property
    def max_item_bytes(self) -> int:
        """As the one below."""
        return self._base.max_item_bytes

    @property
    def privacy(self) -> Privacy:
        """As the one below, but for the content."""
        return msgspec.structs.replace(self._base.privacy, capture_content=self._capture_content)

"""The seam between the SDK and the pipeline behind it: where encoded items go, and which spans are open."""

import weakref
from typing import Any, Final, Protocol

from prela_stream.sdk.encoding import DEFAULT_LIMIT


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
    """What the spans of a tracer share: the recorder of this moment, the size limit, and the spans to send heartbeats for."""

    __slots__ = ("max_item_bytes", "open_spans", "recorder")

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        """None: spans work, but go nowhere."""
        self.max_item_bytes = DEFAULT_LIMIT
        self.open_spans: Final[dict[bytes, weakref.ref[Any]]] = {}
        """Roots and AGENT spans that have not ended, by span id; weak, so that a forgotten span is not kept alive."""

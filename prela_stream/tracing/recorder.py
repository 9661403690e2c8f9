"""The seam between the SDK and the pipeline behind it: where encoded items go, under which rules, and which spans are open."""

import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from prela_stream.privacy.encoding import DEFAULT_LIMIT
from prela_stream.privacy.rules import Privacy, content_scope

SMALL: Final = 256
"""Bytes of an item in which no media is looked for: what stood in its place would take as much room."""


class Recorder(Protocol):
    """Takes items of the `spans` topic. The SDK calls it from any thread and any event loop."""

    def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
        """Take an encoded item. O(1), never awaits, never raises; what cannot be kept is counted by the recorder.

        Args:
            trace_id: 16 raw bytes; decides the partition.
            item: MessagePack bytes as `encode_item` makes them; immutable, owned by nobody.
            reserved: A root or a control item (START, HEARTBEAT, …): may use the room kept for them.
        """


class SpanOutput:
    """What the spans of a tracer share: the recorder of this moment, size limit, privacy, the spans to send heartbeats for."""

    __slots__ = ("_max_item_bytes", "_privacy", "_recorder", "check_above", "new_spans", "open_spans", "record")

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self.record: Callable[[bytes, bytes, bool], None] | None = None
        """The recorder's method, looked up once: spans call it; None: they work, but go nowhere."""
        self.new_spans: Final[dict[Any, bool]] = {}
        """Roots and AGENT spans that have begun since the last `hold_weakly` and have not ended."""
        self.open_spans: Final[weakref.WeakValueDictionary[bytes, Any]] = weakref.WeakValueDictionary()
        """Those that began before, by span id; weak, so that a forgotten span is not kept alive."""
        self.check_above = SMALL
        """Items of more bytes go through `encoding.sanitized` before they are recorded."""
        self._max_item_bytes = DEFAULT_LIMIT
        self._privacy = Privacy()

    @property
    def recorder(self) -> Recorder | None:
        """Where items go; None: nowhere."""
        return self._recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self.record = None if recorder is None else recorder.record

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
        self.check_above = -1 if privacy.is_active else SMALL

    def hold_weakly(self) -> None:
        """Hold the new spans weakly from now on. Done now and then: a weak reference costs a root more than all its fields."""
        while self.new_spans:
            try:
                span, _ = self.new_spans.popitem()
            except KeyError:  # another thread has ended or taken the last one
                return
            self.open_spans[span._id] = span

    def forget(self, span: Any) -> None:
        """A root or AGENT span has ended."""
        if self.new_spans.pop(span, None) is None:
            self.open_spans.pop(span._id, None)

    def in_scope(self) -> "SpanOutput | ScopedSpanOutput":
        """The output for a span that begins now: another one inside of `capture_content()`."""
        scope = content_scope.get()
        return self if scope is None else ScopedSpanOutput(self, capture_content=scope)


class ScopedSpanOutput:
    """An output for a span whose content is recorded, or not, whatever its process was set to."""

    __slots__ = ("_base", "_capture_content")
    check_above: Final = -1

    def __init__(self, base: SpanOutput, *, capture_content: bool) -> None:
        self._base = base
        self._capture_content = capture_content

    @property
    def recorder(self) -> Recorder | None:
        """As the one below."""
        return self._base.recorder

    @property
    def record(self) -> Callable[[bytes, bytes, bool], None] | None:
        """As the one below."""
        return self._base.record

    @property
    def new_spans(self) -> dict[Any, bool]:
        """As the one below."""
        return self._base.new_spans

    def hold_weakly(self) -> None:
        """As the one below."""
        self._base.hold_weakly()

    def forget(self, span: Any) -> None:
        """As the one below."""
        self._base.forget(span)

    @property
    def max_item_bytes(self) -> int:
        """As the one below."""
        return self._base.max_item_bytes

    @property
    def privacy(self) -> Privacy:
        """As the one below, but for the content."""
        return msgspec.structs.replace(self._base.privacy, capture_content=self._capture_content)

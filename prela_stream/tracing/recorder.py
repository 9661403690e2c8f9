"""The interface between spans and the pipeline: where encoded items go, under which rules, and which spans are open."""

import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from prela_stream.errors import HostCall, logger
from prela_stream.privacy.encoding import DEFAULT_LIMIT
from prela_stream.privacy.rules import Privacy, content_scope

SMALL: Final = 256
"""Items of up to this many bytes are not searched for media: the note in its place would take as much room."""


class Recorder(Protocol):
    """Takes items of the `spans` topic. Spans call it from any thread and any event loop."""

    def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
        """Take an encoded item. O(1), never awaits, never raises; the recorder counts what it cannot keep.

        Args:
            trace_id: 16 raw bytes; decides the partition.
            item: MessagePack bytes as `encode_item` makes them; immutable.
            reserved: A root or a control item (START, HEARTBEAT, …): may use the room that is reserved for them.
        """

    def refuse(self, trace_id: bytes) -> None:
        """Count a span that could not be encoded as lost, and its trace as not whole."""


class SpanOutput:
    """What the spans of a tracer share: the current recorder, the size limit, privacy rules, and the open spans."""

    __slots__ = (
        "_is_unused",
        "_max_item_bytes",
        "_privacy",
        "_recorder",
        "_variants",
        "check_above",
        "new_spans",
        "open_spans",
        "record",
    )

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self.record: Callable[[bytes, bytes, bool], None] | None = None
        """The recorder's method, bound once because each span calls it; None: items go nowhere."""
        self.new_spans: dict[Any, bool] = {}
        """Roots and AGENT spans that started since the last `hold_weakly` and have not ended."""
        self.open_spans: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
        """Those that started before, by span id; weak, so that a span that is dropped without an end is not kept alive."""
        self.check_above = SMALL
        """Items of more bytes are checked by `privacy.encoding` before they are recorded."""
        self._max_item_bytes = DEFAULT_LIMIT
        self._privacy = Privacy()
        self._is_unused = True
        """No recorder was set so far, and no span was reported."""
        self._variants: dict[bool, SpanOutput] = {}

    @property
    def recorder(self) -> Recorder | None:
        """Where items go; None: nowhere."""
        return self._recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._is_unused = self._is_unused and recorder is None
        self.record = None if recorder is None else _record_of(recorder)
        for variant in self._variants.values():
            variant.recorder = recorder

    @property
    def max_item_bytes(self) -> int:
        """Larger items are cut to this size."""
        return self._max_item_bytes

    @max_item_bytes.setter
    def max_item_bytes(self, size: int) -> None:
        self._max_item_bytes = size
        for variant in self._variants.values():
            variant.max_item_bytes = size

    @property
    def privacy(self) -> Privacy:
        """What is removed from every span."""
        return self._privacy

    @privacy.setter
    def privacy(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self.check_above = -1 if privacy.is_active else SMALL
        for capture_content, variant in self._variants.items():
            variant.privacy = msgspec.structs.replace(privacy, capture_content=capture_content)

    def in_scope(self) -> "SpanOutput":
        """The output for a span that starts now: a variant of this one inside a `capture_content()` block."""
        scope = content_scope.get()
        return self if scope is None else self._variants.get(scope) or self._variant(capture_content=scope)

    def _variant(self, *, capture_content: bool) -> "SpanOutput":
        """The same output with another `capture_content`; it follows every change of this one."""
        variant = SpanOutput()
        variant.new_spans, variant.open_spans = self.new_spans, self.open_spans
        variant = self._variants.setdefault(capture_content, variant)  # atomic: all threads use the same one
        # It is filled after the setters above know it: they repeat a change of another thread that this misses.
        variant.recorder = self._recorder
        variant.max_item_bytes = self._max_item_bytes
        variant.privacy = msgspec.structs.replace(self._privacy, capture_content=capture_content)
        return variant

    def report_unrecorded(self, name: str) -> None:
        """Log once that a span goes nowhere, unless tracing was started before and has ended since."""
        if self._is_unused:
            self._is_unused = False
            logger.warning(
                "prela_stream: the span %r was not recorded, because tracing was not started. Call prela_stream.init() at the "
                "start of the program. Further spans are not reported.",
                name,
            )

    def hold_weakly(self) -> None:
        """Hold the new spans weakly from now on. Done in batches: one weak reference costs more than a root's other fields."""
        while self.new_spans:
            try:
                span, _ = self.new_spans.popitem()
            except KeyError:  # another thread has taken the last one
                return
            self.open_spans[span._id] = span

    def remove(self, span: Any) -> None:
        """Forget a root or AGENT span that has ended."""
        if self.new_spans.pop(span, None) is None:
            self.open_spans.pop(span._id, None)


def _record_of(recorder: Recorder) -> Callable[[bytes, bytes, bool], None]:
    """The method of the recorder; that of an application is not called for spans that it ends itself."""
    if type(recorder).__module__.partition(".")[0] == "prela_stream":
        return recorder.record
    call = HostCall()

    def record(trace_id: bytes, item: bytes, reserved: bool) -> None:
        with call as nested:
            if nested:
                msg = "a recorder has ended a span inside of record(), which is not recorded"
                raise RuntimeError(msg)
            recorder.record(trace_id, item, reserved)

    return record

"""Exporters in the form of the ancestor SDK: an object whose `export(spans)` gets whole traces.

They run in the agent process and get every recorded trace, before a worker decides. Their spans are decoded from the bytes
that go to the log. The pipeline itself does not use them.
"""

import enum
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, Final

from prela_stream.codec.spans import decode_head, decode_span
from prela_stream.errors import HostCall, guard
from prela_stream.model.plain import safe_text
from prela_stream.model.span import REMOTE_PARENT, ItemKind, SpanData
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.recorder import Recorder

_MAX_OPEN: Final = 1_000
"""Maximum of traces with an open root; beyond it, the trace without a new span for the longest time is exported."""
_MAX_ENDED: Final = 10_000
"""Ended traces that are remembered, so that their late spans do not wait for a second root."""


class ExportResult(enum.Enum):
    """What the ancestor's exporters return. It is ignored: an exporter that wants a retry has to do it."""

    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"


class BaseExporter(ABC):
    """What `init(exporter=…)` and `Tracer(exporter=…)` take; any object with these two methods works."""

    @abstractmethod
    def export(self, spans: list[SpanData]) -> object:
        """Take the spans of one trace in the order of their ends, after its root has ended in this process.

        Called in the thread that ends the root, so it should be quick. Spans that end later are passed one at a time. What it
        raises is logged once, counted, and not raised in the application.
        """

    @abstractmethod
    def shutdown(self) -> None:
        """Release resources; `export` is not called again."""


_recorders: "Final[weakref.WeakSet[ExporterRecorder]]" = weakref.WeakSet()


class ExporterRecorder:
    """Collects the spans of each trace until its root ends, for one exporter."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._reset()
        _recorders.add(self)

    def _reset(self) -> None:
        """Start without spans; also in a forked child, where another thread of the parent may have held the lock."""
        self._call = HostCall()
        self._open: OrderedDict[bytes, list[SpanData]] = OrderedDict()
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.RLock()  # reentrant: a finalizer can end a span while this thread holds it

    def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:  # noqa: ARG002 - the seam
        """See `Recorder.record`; control items are ignored."""
        with guard("exporter.decode"):
            head = decode_head(item)
            if head.kind != ItemKind.SPAN:
                return
            is_root = head.parent_span_id is None or bool(head.flags & REMOTE_PARENT)
            for trace in self._add(trace_id, decode_span(item), is_root=is_root):
                self._export(trace)

    def refuse(self, trace_id: bytes) -> None:
        """See `Recorder.refuse`. The ledger counts the span; an exporter gets nothing."""

    def shutdown(self) -> None:
        """Export the remaining spans and shut the exporter down."""
        with self._lock:
            left = list(self._open.values())
            self._open.clear()
        for trace in left:
            self._export(trace)
        with guard("exporter.shutdown"):
            self._exporter.shutdown()

    def _add(self, trace_id: bytes, span: SpanData, *, is_root: bool) -> list[list[SpanData]]:
        """Add a span; returns the traces to export now."""
        with self._lock:
            if trace_id in self._ended and trace_id not in self._open:
                return [[span]]
            self._open.setdefault(trace_id, []).append(span)
            self._open.move_to_end(trace_id)
            if is_root:
                self._ended[trace_id] = None
                if len(self._ended) > _MAX_ENDED:
                    self._ended.popitem(last=False)
                return [self._open.pop(trace_id)]
            return [self._open.popitem(last=False)[1]] if len(self._open) > _MAX_OPEN else []

    def _export(self, spans: list[SpanData]) -> None:
        with guard("exporter.export"), self._call as nested:
            if nested:
                msg = f"the exporter has ended the span {spans[-1].name!r} inside of export(), which is not exported"
                raise RuntimeError(msg)
            self._exporter.export(spans)


class Tee:
    """Gives each item to two recorders."""

    def __init__(self, first: Recorder, second: Recorder) -> None:
        self._first, self._second = first, second

    def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
        """See `Recorder.record`."""
        self._first.record(trace_id, item, reserved)
        self._second.record(trace_id, item, reserved)

    def refuse(self, trace_id: bytes) -> None:
        """See `Recorder.refuse`."""
        self._first.refuse(trace_id)
        self._second.refuse(trace_id)

    def flush(self, timeout: float = 5.0) -> Any:
        """Flush the first one if it can be flushed; its result."""
        flush = getattr(self._first, "flush", None)
        return flush(timeout) if callable(flush) else None


def checked_recorder(recorder: Any) -> Recorder | None:
    """The recorder, or one for an exporter; raises TypeError for any other object."""
    if recorder is None or callable(getattr(recorder, "record", None)):
        return recorder  # type: ignore[no-any-return]  # it has the method of the protocol
    if callable(getattr(recorder, "export", None)):
        return ExporterRecorder(recorder)
    msg = (
        "exporter= takes an object with a method export(spans) or record(trace_id, item, reserved), got "
        f"{safe_text(recorder)}; the recorder was not changed"
    )
    raise TypeError(msg)


def _forget_spans_of_parent() -> None:
    for recorder in list(_recorders):
        recorder._reset()


at_fork(Step.EXPORTERS, in_child=_forget_spans_of_parent)

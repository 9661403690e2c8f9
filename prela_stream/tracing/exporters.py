"""Exporters of the application's own, in the form of the ancestor SDK: an object whose `export(spans)` gets whole traces.

They run inside the agent's process and see what it sees: every recorded trace, before any worker decides. What they are given
is decoded from the very bytes that go to the log. The pipeline itself needs none of this.
"""

import enum
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, Final

from prela_stream.codec.spans import decode_head, decode_span
from prela_stream.errors import guard
from prela_stream.model.span import REMOTE_PARENT, ItemKind, SpanData
from prela_stream.tracing.recorder import Recorder

_MAX_OPEN: Final = 1_000
"""Traces whose root is still open; of more, the one that was silent longest is exported as it is."""
_MAX_ENDED: Final = 10_000
"""Ended traces that are remembered, so that late spans of them do not wait for a second root."""


class ExportResult(enum.Enum):
    """What the ancestor's exporters return. Nothing is made of it here: an exporter that wants to try again does so itself."""

    SUCCESS = "success"
    FAILURE = "failure"
    RETRY = "retry"


class BaseExporter(ABC):
    """What `init(exporter=…)` and `Tracer(exporter=…)` take; any object with these two methods will do."""

    @abstractmethod
    def export(self, spans: list[SpanData]) -> object:
        """Take the spans of one trace in the order of their ends, once its root has ended in this process.

        Called in the thread that ends the root, so it should be quick; spans that end later come one by one. What it raises
        is logged once and counted, and the application does not notice.
        """

    @abstractmethod
    def shutdown(self) -> None:
        """The program is done with tracing, and nothing more will come."""


class ExporterRecorder:
    """Collects the spans of each trace until its root ends, for one exporter."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._open: OrderedDict[bytes, list[SpanData]] = OrderedDict()
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.RLock()  # a finalizer may end a span while this very thread holds it

    def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:  # noqa: ARG002 - the seam
        """See `Recorder.record`; items that are not ended spans are nothing to an exporter."""
        with guard("exporter.decode"):
            head = decode_head(item)
            if head.kind != ItemKind.SPAN:
                return
            is_root = head.parent_span_id is None or bool(head.flags & REMOTE_PARENT)
            for trace in self._add(trace_id, decode_span(item), is_root=is_root):
                self._export(trace)

    def shutdown(self) -> None:
        """Export what is left and shut the exporter down."""
        with self._lock:
            left = list(self._open.values())
            self._open.clear()
        for trace in left:
            self._export(trace)
        with guard("exporter.shutdown"):
            self._exporter.shutdown()

    def _add(self, trace_id: bytes, span: SpanData, *, is_root: bool) -> list[list[SpanData]]:
        """Take a span in; returns the traces to export now."""
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
        with guard("exporter.export"):
            self._exporter.export(spans)


class Tee:
    """Gives each item to two recorders."""

    def __init__(self, first: Recorder, second: Recorder) -> None:
        self._first, self._second = first, second

    def record(self, trace_id: bytes, item: bytes, reserved: bool = False) -> None:
        """See `Recorder.record`."""
        self._first.record(trace_id, item, reserved)
        self._second.record(trace_id, item, reserved)

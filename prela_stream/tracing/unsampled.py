"""Spans of traces that head sampling dropped: they propagate the trace id, record nothing and hold almost nothing."""

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from prela_stream import telemetry
from prela_stream.model.span import SpanStatus
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.span import Span


class UnsampledSpan(Span):
    """The first span of such a trace in this process. It has every method of a Span; those that set something do nothing."""

    __slots__ = ("_inner",)
    _inner: "UnsampledSpan"

    def child(self) -> "UnsampledSpan":
        """The one span that is used for all spans inside this one."""
        telemetry.UNSAMPLED_SPANS.inc()
        try:
            return self._inner
        except AttributeError:
            self._inner = _InnerSpan.of(self)
            return self._inner

    def _finish_now(self, duration: int) -> bool:
        if not self.is_ended:
            self._duration_ns = duration
            telemetry.UNSAMPLED_SPANS.inc()
        return True

    _finish = _finish_now

    @property
    def sampled(self) -> bool:
        """False."""
        return False

    def set_attribute(self, key: str, value: Any) -> None:
        """Do nothing: the trace is not recorded."""

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Do nothing."""

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: datetime | int | None = None
    ) -> None:
        """Do nothing."""

    def add_link(self, target: "Span | TraceContext", attributes: Mapping[str, Any] | None = None) -> None:
        """Do nothing."""

    def set_status(self, status: SpanStatus | str, message: str | None = None) -> None:
        """Do nothing."""

    def record_exception(self, error: BaseException, attributes: Mapping[str, Any] | None = None) -> None:
        """Do nothing."""

    def update_name(self, name: str) -> None:
        """Do nothing."""

    def suspend(self, until: datetime | int | None = None, reason: str | None = None) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""

    def _abandon(self) -> None:
        pass

    def _count_child(self) -> int:
        return 0

    def _count_inject(self) -> int | None:
        return None


class _InnerSpan(UnsampledSpan):
    """Any span inside an `UnsampledSpan`. Entering and leaving it does not change the current span."""

    __slots__ = ()

    @classmethod
    def of(cls, outer: UnsampledSpan) -> Self:
        inner = object.__new__(cls)
        for name in ("_attributes", "_began", "_flags", "_id", "_more", "_name", "_output", "_parent_id"):
            setattr(inner, name, getattr(outer, name))
        inner._announce_pending, inner._start_ns, inner._status = None, outer._start_ns, outer._status
        inner._trace, inner._type, inner._inner = outer._trace, outer._type, inner
        return inner

    def _finish_now(self, duration: int) -> bool:  # noqa: ARG002 - the interface
        return True

    _finish = _finish_now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

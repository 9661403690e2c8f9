"""Spans of traces that head sampling left out: they carry the trace id on, and cost and hold next to nothing."""

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from prela_stream import telemetry
from prela_stream.model.span import SpanStatus
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.span import Span


class UnsampledSpan(Span):
    """The first span of such a trace in this process. Answers every call of a Span and keeps nothing that it is told."""

    __slots__ = ("_inner",)
    _inner: "UnsampledSpan"

    def child(self) -> "UnsampledSpan":
        """The one span that stands for all spans inside this one."""
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
        """Nothing: the trace is not recorded. So with all methods that follow."""

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Nothing."""

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: datetime | int | None = None
    ) -> None:
        """Nothing."""

    def add_link(self, target: "Span | TraceContext", attributes: Mapping[str, Any] | None = None) -> None:
        """Nothing."""

    def set_status(self, status: SpanStatus | str, message: str | None = None) -> None:
        """Nothing."""

    def record_exception(self, error: BaseException, attributes: Mapping[str, Any] | None = None) -> None:
        """Nothing."""

    def update_name(self, name: str) -> None:
        """Nothing."""

    def suspend(self, until: datetime | int | None = None, reason: str | None = None) -> None:
        """Nothing."""

    def resume(self) -> None:
        """Nothing."""

    def _abandon(self) -> None:
        pass

    def _count_child(self) -> int:
        return 0

    def _count_inject(self) -> int | None:
        return None


class _InnerSpan(UnsampledSpan):
    """Any span inside an `UnsampledSpan`. Entering and leaving it changes nothing: what is current says all there is to say."""

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

"""Spans of traces that head sampling dropped: they propagate the trace id, record nothing and hold almost nothing."""

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, cast

from prela_stream import telemetry
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.tracing.children import CLOSED
from prela_stream.tracing.coerce import attributes_of
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.parent import Scope
from prela_stream.tracing.span import Span
from prela_stream.tracing.templates import F, decorated, decorator_of, is_decorated

_new: Final = object.__new__


class UnsampledSpan(Span):
    """The first span of such a trace in this process. It has every method of a Span; those that set something do nothing."""

    __slots__ = ()

    def child(self, tracer: Any, name: Any, span_type: SpanType, attributes: Any, scope: Scope) -> "UnsampledSpan":
        """A span inside this one. The arguments matter only if it is used as a decorator."""
        if type(name) is not str and is_decorated(name):
            return decorated(tracer, name, span_type, attributes_of(attributes or {}), scope)  # type: ignore[no-any-return]
        telemetry.UNSAMPLED_SPANS.inc()
        inner: InnerSpan = _new(InnerSpan)
        inner._outer, inner._given = self, (tracer, name, span_type, attributes, scope)
        return inner

    def _finish_now(self, duration: int) -> bool:
        if not self.is_ended:
            self._duration_ns = duration
            self._attributes = self._final = CLOSED
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


class InnerSpan(UnsampledSpan):
    """Any span inside an `UnsampledSpan`: it has the fields of that one. Entering it does not make it current."""

    __slots__ = ("_given", "_outer")
    _given: tuple[Any, Any, SpanType, Any, Scope]
    _outer: UnsampledSpan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outer, name)  # called for unset slots: all but the two above

    def __call__(self, function: F) -> F:
        tracer, name, span_type, attributes, scope = self._given
        return cast("F", decorator_of(tracer, name, span_type, attributes_of(attributes or {}), scope)(function))

    def _finish_now(self, duration: int) -> bool:  # noqa: ARG002 - the interface
        return True

    _finish = _finish_now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def _leave(self) -> None:
        pass

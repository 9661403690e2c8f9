"""A live span: open until `end()`, which freezes it and passes its bytes to the recorder. It is its own context manager."""

import sys
import time
from collections.abc import Mapping
from datetime import datetime
from types import FrameType, TracebackType
from typing import Any, Final, Self

from prela_stream import telemetry
from prela_stream.errors import SpanEndedError, guard, guarded, logger, strict
from prela_stream.model.plain import SCALARS, refuse_unless_plain
from prela_stream.model.span import (
    CANCELLED,
    COUNTED,
    ERROR,
    REMOTE_PARENT,
    SPAN_STATUSES,
    SPAN_TYPES,
    SUCCESS,
    ItemKind,
    SpanEvent,
    SpanLink,
    SpanStatus,
    SpanType,
)
from prela_stream.privacy.encoding import REFUSED, encode_fast, encode_slow, sanitized
from prela_stream.tracing.children import CLOSED, INJECT, ChildCounts
from prela_stream.tracing.coerce import (
    describe_error,
    event_attributes,
    is_failure,
    is_ordinary_exit,
    key_of,
    nanoseconds,
    status_code,
    text_of,
)
from prela_stream.tracing.context import TraceContext
from prela_stream.tracing.current import current, enter, leave
from prela_stream.tracing.fields import target_of
from prela_stream.tracing.generators import GENERATOR, ON_BEHALF, FrameEntry, watched
from prela_stream.tracing.items import control_item, record_rest
from prela_stream.tracing.parent import get_raw, set_raw
from prela_stream.tracing.setters import TypedSetters
from prela_stream.tracing.templates import Template

SUSPEND_UNTIL: Final = "prela.suspend.until"
"""Attribute of a wait: its latest end, ns since the epoch."""
SUSPEND_REASON: Final = "prela.suspend.reason"
_SPAN: Final = int(ItemKind.SPAN)
_AGENT: Final = SPAN_TYPES.index(SpanType.AGENT)
_now: Final = time.time_ns
_clock: Final = time.perf_counter_ns
_new: Final = object.__new__
_getframe: Final = sys._getframe
_END_GUARD: Final = guard("span.end")


class Span(Template, TypedSetters):
    """A piece of work with a start and an end. Made by `Tracer.span()` and `Tracer.start_span()`, which start it.

    Use it with `with` or `async with`: it is current in the block and ends with it. If an exception leaves the block, its
    status is ERROR; if a cancellation does, CANCELLED. Or call `end()`. It may be used from any thread. No method raises;
    with `PRELA_STRICT=1` errors are raised.
    """

    __slots__ = ()

    # --- start and end ---

    def __enter__(self) -> Self:
        # No token: it works in its own context only, and a generator can be closed in another one.
        frame = _getframe(1)
        code = frame.f_code
        if watched or code.co_flags & GENERATOR or code.co_name in ON_BEHALF:
            self._enter_generator(frame)
        else:
            self._previous = get_raw()
            set_raw(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None and self._attributes is not CLOSED:
                self.record_exception(error)
        finally:  # an interrupt above must not leave the span open
            previous = self._previous
            if get_raw() is self and (previous is None or type(previous) is not FrameEntry):
                set_raw(previous)
            else:
                leave(self, previous)
            try:
                self._finish_now(_clock() - self._began)
            except Exception as failure:  # as `guarded`, which costs one more call
                if not _END_GUARD.__exit__(type(failure), failure, failure.__traceback__):
                    raise

    def _leave(self) -> None:
        """No longer be current, without an end."""
        leave(self, self._previous)

    def _enter_generator(self, frame: FrameType) -> None:
        """Enter where a generator is involved. The span is held weakly, so that a dropped generator is freed."""
        self._previous = enter(self, frame, getattr(self, "_scope", None))
        self._output.hold_weakly()

    async def __aenter__(self) -> Self:
        frame = _getframe(1)
        if watched or frame.f_code.co_flags & GENERATOR or frame.f_code.co_name in ON_BEHALF:
            self._enter_generator(frame)
        else:
            self._previous = get_raw()
            set_raw(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def end(self, end_time: datetime | int | None = None) -> None:
        """End the span. Its content is encoded now; later changes have no effect.

        Args:
            end_time: An aware datetime or ns since the epoch, if the work ended before now; never before the start.
        """
        duration = _clock() - self._began
        if end_time is not None:
            with guard("span.end"):
                duration = max(0, nanoseconds(end_time) - self._start_ns)
        if self._finish(duration) is False:
            self._report_ended("end")

    def _finish_now(self, duration: int) -> bool:  # noqa: C901 - the hot path is written out: a call costs 0.1 µs
        """Freeze the span and record it; False if it has ended before."""
        try:
            del self._open  # atomic: of two threads one gets an AttributeError
        except AttributeError:
            return False
        fields: tuple[Any, ...] = ()
        try:
            self._final = attributes = self._attributes
            self._attributes = CLOSED
            children = self._children
            children_started = injects = 0
            if children is not None:
                self._frozen = memoryview(children)
                injects = children.count(INJECT)
                children_started = len(children) - injects
            self._duration_ns = duration
            self._status = status = self._status or SUCCESS
            more = self._more
            trace = self._trace
            flags = self._flags
            parent_id = self._parent_id
            output = self._output
            if self._announce_pending is not None and output.new_spans.pop(self, None) is None:
                output.remove(self)
            record = output.record
            if record is None:
                self._release()
                output.report_unrecorded(self._name)
                return True
            trace_id = trace.raw_trace_id
            remote = flags & REMOTE_PARENT
            fields = (
                _SPAN,
                trace_id,
                self._id,
                parent_id,
                flags,
                status,
                0,
                children_started,
                injects,
                trace.inject_ordinal if remote else None,
                self._type,
                self._start_ns,
                duration,
                self._name,
                trace.randomness,
                trace.threshold,
                attributes,
            )
            try:
                if more is not None:
                    fields = (*fields, more.events, more.links, more.message)
                    more.refuse_unless_plain()
                for value in attributes.values():
                    if type(value) not in SCALARS:
                        refuse_unless_plain(value)
                item = encode_fast(fields)
            except REFUSED:
                item = encode_slow(fields)
                self._release()
            if len(item) > output.check_above:
                item = sanitized(item, output.privacy, output.max_item_bytes)
                self._release()
        except BaseException as error:
            record_rest(self, fields, error)
            raise
        record(trace_id, item, parent_id is None or remote != 0)
        return True

    _finish = guarded("span.end")(_finish_now)

    # --- what the application sets ---

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute to any value. It is read when the span ends; a value that MessagePack cannot hold becomes text."""
        if type(key) is not str:
            key = key_of(key)
        try:
            self._attributes[key] = value
        except TypeError:  # the read-only mapping of an ended span
            self._report_ended("set_attribute")

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes at once."""
        with guard("span.set_attributes"):
            for key, value in dict(attributes).items():
                self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: datetime | int | None = None
    ) -> None:
        """Add an event at `timestamp` (an aware datetime or ns since the epoch); None: now."""
        if self._is_open("add_event"):
            with guard("span.add_event"):
                time_ns = _now() if timestamp is None else nanoseconds(timestamp)
                self._extras().events.append(SpanEvent(text_of(name), time_ns, event_attributes(attributes)))

    def add_link(self, target: "Span | TraceContext", attributes: Mapping[str, Any] | None = None) -> None:
        """Refer to a span that is related but not the parent, for instance the producer of each message of a batch."""
        if self._is_open("add_link"):
            with guard("span.add_link"):
                trace_id, span_id = target_of(target)
                self._extras().links.append(SpanLink(trace_id, span_id, event_attributes(attributes)))

    def set_status(self, status: SpanStatus | str, message: str | None = None) -> None:
        """Set the result of the work. If it is not set, a span without an exception ends as SUCCESS."""
        if self._is_open("set_status"):
            with guard("span.set_status"):
                self._status = status_code(status)
                if message is not None or self._more is not None:
                    self._extras().message = None if message is None else text_of(message)

    def record_exception(self, error: BaseException, attributes: Mapping[str, Any] | None = None) -> None:
        """Record an exception. The status becomes ERROR, or CANCELLED for a cancellation, an interrupt or an exit with an error.

        Sets `error.type`, `error.message` and, for an error, `error.stacktrace`; `attributes` are added to them. The close of a
        generator and an exit with code 0 are ordinary ends: they set nothing, and the status stays as it is.
        """
        if self._is_open("record_exception"):
            with guard("span.record_exception"):
                if is_ordinary_exit(error):
                    self.set_attributes(attributes or {})
                    return
                failed = is_failure(error)
                described = describe_error(error, with_stack=failed)
                self._attributes.update(described)
                self._status = ERROR if failed else CANCELLED
                self._extras().message = described.get("error.message") or described["error.type"]
                if attributes:
                    self.set_attributes(attributes)

    def update_name(self, name: str) -> None:
        """Rename the span."""
        if self._is_open("update_name"):
            with guard("span.update_name"):
                self._name = text_of(name)

    def suspend(self, until: datetime | int | None = None, reason: str | None = None) -> None:
        """Report that this span waits for something outside, for instance a person. Its trace is not decided during the wait.

        Args:
            until: The latest end of the wait, if it is known: an aware datetime or ns since the epoch. It informs readers; the
                wait ends with `resume()` or with the span.
            reason: What it waits for.
        """
        if self._is_open("suspend"):
            with guard("span.suspend"):
                details: dict[str, Any] = {}
                if until is not None:
                    details[SUSPEND_UNTIL] = nanoseconds(until)
                if reason is not None:
                    details[SUSPEND_REASON] = text_of(reason)
                self.add_event("suspend", details)
                self._send_control(ItemKind.SUSPEND, details)

    def resume(self) -> None:
        """Report the end of the wait of `suspend()`."""
        if self._is_open("resume"):
            self.add_event("resume")
            self._control(ItemKind.RESUME)

    # --- for the tracer and the pipeline ---

    def _announce(self) -> None:
        """Send the START item: this span is open and will end. A root or an AGENT span sends it before its first child."""
        self._announce_pending = False
        self._control(ItemKind.START)

    def _send_heartbeat(self) -> None:
        """Send a HEARTBEAT item, or the START item if it was not sent yet."""
        if self._announce_pending:
            self._announce()
        else:
            self._control(ItemKind.HEARTBEAT)

    @guarded("span.control")
    def _control(self, kind: ItemKind) -> None:
        self._send_control(kind, None)

    def _send_control(self, kind: ItemKind, attributes: dict[str, Any] | None) -> None:
        record = self._output.record
        if record is not None:
            time_ns = self._start_ns if kind is ItemKind.START else _now()
            record(self._trace.raw_trace_id, control_item(self, kind, time_ns, attributes), True)

    def _abandon(self) -> None:
        """End without a record: in a forked child, because the parent process ends the span."""
        if not self.is_ended:
            del self._open
            self._final, self._attributes = self._attributes, CLOSED
            self._duration_ns = _clock() - self._began
            self._release()

    def _withdraw(self) -> None:
        """Undo the start of this span. If it was announced or its parent has ended, it ends as CANCELLED."""
        if self.is_ended:
            return
        parent = current()
        announced = self._announce_pending is False
        counted = self._flags & COUNTED
        if counted and isinstance(parent, ChildCounts) and parent._id == self._parent_id:
            counted = not parent._uncount_child()
        if announced or counted:
            self.set_status(SPAN_STATUSES[CANCELLED], "used as a decorator")
            self.end()
        else:
            self._output.remove(self)
            self._abandon()

    def _is_open(self, method: str) -> bool:
        if self._attributes is not CLOSED:
            return True
        self._report_ended(method)
        return False

    def _report_ended(self, method: str) -> None:
        """Report a change after the end: raise under PRELA_STRICT, else count it and log the first one of each method."""
        text = (
            f"{method}() on the span {self._name!r}, which has ended; it has no effect. Change a span before its end."
        )
        if strict():
            raise SpanEndedError(text)
        is_first = not telemetry.ENDED_SPAN_CHANGES.value(method)
        telemetry.ENDED_SPAN_CHANGES.add(1, method)  # before the log call, whose handlers may change an ended span, too
        if is_first:
            logger.warning("prela_stream: %s Further calls of this kind are counted and not logged.", text)

"""Starts spans: finds the parent, asks the sampler at a root, and fills the fields. Holds the global tracer."""

import os
import time
import weakref
from collections.abc import Mapping
from typing import Any, Final, Self

from prela_stream.errors import HostCall, guard, warn_once
from prela_stream.model.plain import safe_text
from prela_stream.model.semconv import SERVICE_NAME
from prela_stream.model.span import AFTER_END, COUNTED, PENDING, REMOTE_PARENT, SPAN_TYPE_CODES, SPAN_TYPES, SpanType
from prela_stream.privacy.rules import Privacy, checked_privacy, scopes_used
from prela_stream.tracing.carried import register_pickling
from prela_stream.tracing.children import CLOSED
from prela_stream.tracing.coerce import copy_of, text_of, type_code
from prela_stream.tracing.context import TraceContext, parent_of
from prela_stream.tracing.current import current, forget_generators, parent_of_new_span
from prela_stream.tracing.deferred import Deferred
from prela_stream.tracing.exporters import BaseExporter, checked_recorder
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.generators import FrameEntry, previous_of, unwrap, watched
from prela_stream.tracing.ids import new_span_id, new_trace_id, span_ids, trace_ids
from prela_stream.tracing.kinds import SpanKinds
from prela_stream.tracing.parent import Parent, Scope, get_raw, set_raw
from prela_stream.tracing.recorder import Recorder, SpanOutput
from prela_stream.tracing.sampler import KEEP, OWN_SAMPLERS, AlwaysOnSampler, BaseSampler, checked
from prela_stream.tracing.session import carried_attributes, ids_used, note_baggage
from prela_stream.tracing.span import Span
from prela_stream.tracing.templates import Unnamed, also_decorates, decorated, is_decorated
from prela_stream.tracing.unsampled import UnsampledSpan

_AGENT: Final = SPAN_TYPE_CODES[SpanType.AGENT]
_CUSTOM: Final[SpanType] = SpanType.CUSTOM
_CUSTOM_CODE: Final = SPAN_TYPE_CODES[SpanType.CUSTOM]
_new: Final = object.__new__
_now: Final = time.time_ns
_clock: Final = time.perf_counter_ns
_take_span_id: Final = span_ids.take
_take_trace_id: Final = trace_ids.take
_UNCHANGED: Final[Any] = object()
_shared: Final = SpanOutput()
_sampler_call: Final = HostCall()


class Tracer(SpanKinds):
    """Starts spans. `init()` configures the one that `get_tracer()` returns; create others for another sampler or service name.

    Args:
        service_name: If given, each span of this tracer has it as `service.name`. Otherwise the name given to `init()` counts,
            which is sent once per batch.
        exporter: A `Recorder` that takes the items, or an object whose `export(spans)` takes whole traces (`BaseExporter`);
            None: the recorder of the global tracer.
        sampler: The head sampler, asked at roots; None: every trace is recorded.
        capture_for_replay: An argument of the ancestor SDK. It has no effect, which is logged once as a warning.
    """

    __slots__ = ("__weakref__", "_key", "_output", "_sampler", "_service")

    def __init__(
        self,
        service_name: str | None = None,
        exporter: Recorder | BaseExporter | None = None,
        sampler: BaseSampler | None = None,
        capture_for_replay: bool = False,
    ) -> None:
        if capture_for_replay is True:
            warn_once("Tracer(capture_for_replay=True) has no effect: requests and answers are recorded on the spans")
        self._service: dict[str, Any] | None = None if service_name is None else {SERVICE_NAME: text_of(service_name)}
        self._key: str | None = None
        """Names this tracer in pickles; set by the first one."""
        self._sampler: BaseSampler | None = None
        self._output = _shared
        self.configure(sampler=sampler)
        if exporter is not None:
            self._output = SpanOutput()
            self.configure(recorder=exporter)  # type: ignore[arg-type]  # configure() accepts both

    @property
    def service_name(self) -> str | None:
        """The `service.name` of this tracer's spans; None if it is the one given to `init()`."""
        return None if self._service is None else self._service[SERVICE_NAME]

    @property
    def recorder(self) -> Recorder | None:
        """Where items go; None: nowhere."""
        return self._output.recorder

    @property
    def sampler(self) -> BaseSampler:
        """The head sampler."""
        return self._sampler or AlwaysOnSampler()

    def configure(
        self,
        *,
        recorder: Recorder | None = _UNCHANGED,
        sampler: BaseSampler | None = _UNCHANGED,
        max_item_bytes: int | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        """Replace the given parts. Open spans end into the new recorder.

        Args:
            recorder: None: items go nowhere.
            sampler: None: every trace is recorded.
            max_item_bytes: A span with a larger item is cut to this size; the default is 750,000, the minimum 4,096.
            privacy: What is removed from every span; the default is nothing.
        """
        with guard("tracer.configure"):
            if privacy is not None:  # before the recorder: a new one must not get an item under the old rules
                self._output.privacy = checked_privacy(privacy)
            if recorder is not _UNCHANGED:
                self._output.recorder = checked_recorder(recorder)
            if sampler is not _UNCHANGED:
                self._sampler = None if isinstance(sampler, AlwaysOnSampler) else sampler
            if max_item_bytes is not None:
                self._output.max_item_bytes = max(4096, int(max_item_bytes))

    @also_decorates
    def span(  # noqa: C901, PLR0912, PLR0915 - the hot path: each function call would cost 1 to 2 % of it
        self,
        name: str = Unnamed("span"),
        span_type: SpanType = SpanType.CUSTOM,
        attributes: Mapping[str, Any] | None = None,
        *,
        parent: Parent | None = None,
        scope: Scope = None,
    ) -> Span:
        """Start a span for `with` or `async with`: it is current in the block and ends with it.

        It is also a decorator: `@tracer.span` or `@tracer.span("name", …)` gives each call of a function such a span. A wrapper
        has the kind of its function; see `trace`. In a decorator, `parent` has no effect.

        Args:
            name: The name of the work.
            span_type: The kind of work.
            attributes: Initial attributes; the mapping is copied.
            parent: A Span, the TraceContext of another process, or a `Deferred`; None: the current span.
            scope: In a generator, a span is current for what the generator runs and never for its consumer. "caller": it is
                current for the code that resumes the generator, as a fixture that yields needs it.

        Returns:
            The span, which has started; a root if no span is current.
        """
        above: Any = parent
        if parent is None:
            above = get_raw()
            if watched or (above is not None and type(above) is FrameEntry):
                above = parent_of_new_span(above)
        announce: bool | None = None
        sampled: bool | None = True
        if type(above) is Span:
            trace: TraceContext = above._trace
            parent_id: bytes | None = above._id
            children = above._children
            if children is None:
                flags = above._count_child()
            elif above._attributes is CLOSED:  # from here on a copy of `_count_child`, without the call
                flags = AFTER_END
            else:
                try:
                    children.append(0)
                    flags = COUNTED
                except BufferError:
                    flags = AFTER_END
        elif above is None:
            trace = _new(TraceContext)
            try:
                trace.raw_trace_id = _take_trace_id()
            except IndexError:
                trace.raw_trace_id = new_trace_id()
            trace.randomness = trace.threshold = (
                None  # the defaults of the class; attributes of an instance are read faster
            )
            parent_id, flags, announce = None, 0, True
            if self._sampler is not None:
                self._decide(trace)
                sampled = trace.sampled
        elif parent is None and isinstance(above, UnsampledSpan):
            return above.child(self, name, span_type, attributes, scope)
        else:
            trace, parent_id, flags = self._parent_fields(above)
            sampled = trace.sampled
            if parent_id is None or flags & REMOTE_PARENT:
                announce = True
        if span_type is _CUSTOM:
            code = _CUSTOM_CODE
        else:
            code = SPAN_TYPE_CODES[span_type] if type(span_type) is SpanType else type_code(span_type)
        # Filled from here: an `__init__` with this many arguments costs a third of the whole span.
        span: Span = Span() if sampled else UnsampledSpan()
        output = self._output.in_scope() if scopes_used else self._output
        span._output = output
        span._tracer = self
        span._trace = trace
        span._parent_id = parent_id
        span._flags = flags
        try:
            span_id = _take_span_id()
        except IndexError:
            span_id = new_span_id()
            output.hold_weakly()
        span._id = span_id
        span._type = code
        if type(name) is str or type(name) is Unnamed:
            span._name = name
        elif is_decorated(name):
            return self._decorated(name, above if flags & COUNTED else None, code, attributes, scope)
        else:
            span._name = text_of(name)
        span._status = PENDING
        span._more = None
        span._children = None
        span._open = True
        span._attributes = {} if attributes is None else copy_of(attributes)
        if self._service is not None:
            span._attributes.update(self._service)
        if ids_used:
            span._attributes = {**carried_attributes(trace._baggage), **span._attributes}
        if (announce or code == _AGENT) and sampled:
            span._announce_pending = True
            output.new_spans[span] = True
        else:
            span._announce_pending = announce
        if scope is not None:
            span._scope = scope
        span._start_ns = _now()
        span._began = _clock()
        return span

    def _decorated(
        self, function: Any, parent: Any, code: int, attributes: Mapping[str, Any] | None, scope: Scope
    ) -> Span:
        """The wrapper of a function that `span` was given for a name; `parent` has counted a child that does not start."""
        if isinstance(parent, Span):
            parent._uncount_child()
        found = {} if attributes is None else copy_of(attributes)
        return decorated(self, function, SPAN_TYPES[code], found, scope)  # type: ignore[no-any-return]  # as typed by also_decorates

    def start_span(
        self,
        name: str,
        span_type: SpanType = SpanType.CUSTOM,
        attributes: Mapping[str, Any] | None = None,
        *,
        parent: Parent | None = None,
    ) -> Span:
        """Start a span that does not become current. End it with `end()`, in any thread or task. Arguments as in `span()`."""
        return self.span(text_of(name), span_type, attributes, parent=parent)

    def defer(self) -> Deferred:
        """Reserve a counted child of the current span for work that starts later, even after that span has ended."""
        above = current()
        return Deferred(above if isinstance(above, Span | TraceContext) else None, self.span)

    def get_current_span(self) -> Span | None:
        """The current span of any tracer; None if there is none."""
        return get_current_span()

    def shutdown(self) -> None:
        """Deliver what was recorded: shut down this tracer's exporter, or flush the pipeline of `init()`, which ends at exit."""
        with guard("tracer.shutdown"):
            recorder: Any = self._output.recorder
            deliver = getattr(recorder, "shutdown", None) or getattr(recorder, "flush", None)
            if callable(deliver):
                deliver()

    def set_global(self) -> None:
        """Give the global tracer the name, recorder and sampler of this one; `get_tracer()` returns the same object as before."""
        set_global_tracer(self)

    def __copy__(self) -> Self:
        return self  # code that keeps a tracer on its objects copies the objects, and means this tracer

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickled in this process, it is this tracer. In another one, it has the same name and sampler.

        The global tracer becomes the global tracer there. An exporter is not pickled.
        """
        if self is _global:
            return get_tracer, ()
        if self._key is None:
            self._key = os.urandom(16).hex()
        _pickled[self._key] = self
        return _restored, (type(self), self._key, self._service, self._sampler, self._output is _shared)

    def _parent_fields(self, above: Any) -> tuple[TraceContext, bytes | None, int]:
        """Trace, parent span id and flags of a span whose parent is not a Span that is current."""
        given = parent_of(above)
        above = given if issubclass(type(given), Parent) else None  # not `isinstance`, which a mock passes
        is_parent = above is given
        if isinstance(above, Deferred):
            flag, below = above.take(), above.above
            if isinstance(below, Span):
                return below._trace, below._id, below._count_child() if flag is None else flag
            above = below
        if isinstance(above, Span):
            return above._trace, above._id, above._count_child()
        if isinstance(above, TraceContext):
            note_baggage(above.baggage)
            if above.sampled is None:
                self._decide(above)
            return above, above.raw_span_id, 0 if above.raw_span_id is None else REMOTE_PARENT
        with guard("tracer.span"):
            if not is_parent:
                msg = f"parent= takes a Span, a TraceContext, a Deferred or None, got {safe_text(given)}; it starts a trace"
                raise TypeError(msg)
        trace = TraceContext()
        if self._sampler is not None:
            self._decide(trace)
        return trace, None, 0

    def _decide(self, trace: TraceContext) -> None:
        sampler, decision = self._sampler, KEEP
        if sampler is not None:
            with guard("sampler.decide"):
                if type(sampler) in OWN_SAMPLERS:
                    decision = sampler.decide(trace.raw_trace_id)
                else:
                    with _sampler_call as nested:
                        if not nested:  # a trace that the sampler itself starts is kept
                            decision = checked(sampler.decide(trace.raw_trace_id))
        trace.sampled = decision.sampled
        trace.threshold = decision.threshold if decision.sampled else None


_global: Final = Tracer()
_pickled: Final[weakref.WeakValueDictionary[str, Tracer]] = weakref.WeakValueDictionary()


def _restored(
    kind: type[Tracer], key: str, service: dict[str, Any] | None, sampler: BaseSampler | None, is_shared: bool
) -> Tracer:
    tracer = _pickled.get(key)
    if tracer is None:
        tracer = object.__new__(kind)
        tracer._key, tracer._service, tracer._sampler = key, service, sampler
        tracer._output = _shared if is_shared else SpanOutput()
        tracer = _pickled.setdefault(key, tracer)
    return tracer


def get_tracer() -> Tracer:
    """The global tracer: the same object for the life of the process. Before `init()` its spans work but are not recorded."""
    return _global


def set_global_tracer(tracer: Tracer) -> None:
    """Give the global tracer the name, recorder and sampler of this one."""
    with guard("set_global_tracer"):
        _global._service, _global._sampler = tracer._service, tracer._sampler
        output, given = _global._output, tracer._output
        output.privacy, output.recorder, output.max_item_bytes = given.privacy, given.recorder, given.max_item_bytes


def get_current_span() -> Span | None:
    """The span that is current in this task or thread; None if there is none."""
    here = current()
    return here if isinstance(here, Span) else None


def defer() -> Deferred:
    """Reserve a counted child of the current span for work that starts later, even after that span has ended."""
    return _global.defer()


def _continue_in_child() -> None:
    """After a fork: the parent process ends the open spans. Spans of the child are local roots below the current span."""
    _shared.new_spans.clear()
    _shared.open_spans.clear()
    here, raw = current(), get_raw()
    inherited = [here, *(entry.parent for reference in watched.values() if (entry := reference()) is not None)]
    while raw is not None:
        inherited.append(unwrap(raw))
        raw = previous_of(raw)
    if isinstance(here, Span):
        context = TraceContext(sampled=here.sampled)
        context.__dict__.update(here._trace.__dict__)
        context.raw_span_id, context.inject_ordinal = here._id, None  # the parent process does not count these children
        set_raw(context)
    forget_generators()
    for span in inherited:
        if isinstance(span, Span):
            span._abandon()


at_fork(Step.CURRENT_SPAN, in_child=_continue_in_child)
register_pickling()

"""The control items of a span (START, HEARTBEAT, SUSPEND, RESUME) as bytes. `Span._finish_now` encodes the span item itself."""

from typing import Any, Final

from prela_stream.errors import strict
from prela_stream.model.plain import cut_text, plain
from prela_stream.model.span import PENDING, REMOTE_PARENT, ItemKind
from prela_stream.privacy.encoding import REFUSED, encode_fast, encode_rest, sanitized
from prela_stream.tracing.fields import SpanView

_NONE: Final[tuple[Any, ...]] = ()


def control_item(span: SpanView, kind: ItemKind, time_ns: int, attributes: dict[str, Any] | None) -> bytes:
    """A control item about a span.

    Args:
        span: The open span.
        kind: What to report about it.
        time_ns: When, ns since the epoch.
        attributes: Those of the item; None for none.
    """
    trace = span._trace
    ordinal = trace.inject_ordinal if span._flags & REMOTE_PARENT else None
    head = (int(kind), trace.raw_trace_id, span._id, span._parent_id, span._flags, PENDING, 0, None, None, ordinal)
    rest: tuple[Any, ...] = (trace.randomness, trace.threshold)
    if attributes:
        rest = (*rest, attributes, _NONE, _NONE, None)
    name = cut_text(span._name)  # the span item has all of it
    try:
        item = encode_fast((*head, span._type, time_ns, None, name, *rest))
    except REFUSED:
        item = encode_fast((*head, span._type, time_ns, None, plain(name), *plain(rest)))
    return sanitized(item, span._output.privacy, span._output.max_item_bytes) if attributes else item


def record_rest(span: SpanView, fields: tuple[Any, ...], error: BaseException) -> None:
    """Record a span without its content, because encoding it raised `error`; count it as lost if that fails too.

    Under PRELA_STRICT, which lets errors out, it is counted as lost.
    """
    recorder = span._output.recorder
    if recorder is None:
        return
    item: bytes | None = None
    try:
        if fields and not (isinstance(error, Exception) and strict()):
            item = encode_rest(fields, error, span._output.privacy, span._output.max_item_bytes)
    finally:
        if fields:
            span._release()
        if item is None:
            recorder.refuse(span._trace.raw_trace_id)
        else:
            recorder.record(
                span._trace.raw_trace_id, item, span._parent_id is None or bool(span._flags & REMOTE_PARENT)
            )

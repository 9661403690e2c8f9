"""Items of the `spans` topic: of a whole `SpanData`, or of numbers where only the ids matter."""

from prela_stream.codec.spans import encode_item
from prela_stream.model.span import SPAN_STATUS_CODES, SPAN_TYPE_CODES, ItemKind, SpanData


def encode_span(span: SpanData) -> bytes:
    """The item of a finished span: the inverse of `decode_span`."""
    return encode_item(
        ItemKind.SPAN,
        bytes.fromhex(span.trace_id),
        bytes.fromhex(span.span_id),
        None if span.parent_span_id is None else bytes.fromhex(span.parent_span_id),
        span.flags,
        SPAN_STATUS_CODES[span.status],
        span.revision,
        span.child_count,
        span.inject_count,
        span.inject_ordinal,
        SPAN_TYPE_CODES[span.span_type],
        span.start_ns,
        span.duration_ns,
        span.name,
        span.randomness,
        span.threshold,
        span.attributes,
        span.events,
        span.links,
        span.status_message,
    )


def make_item(number: int, *, trace: int | None = None, padding: int = 0) -> tuple[bytes, bytes]:
    """Trace id and bytes of a span item; ten numbers make a trace unless `trace` is given. `padding`: bytes of its name."""
    trace_id = (number // 10 if trace is None else trace).to_bytes(16, "big")
    name = "p" * padding
    return trace_id, encode_item(ItemKind.SPAN, trace_id, span_id(number), None, 0, 1, 0, 0, 0, None, 5, 0, 0, name)


def span_id(number: int) -> bytes:
    """The span id of item `number`."""
    return number.to_bytes(8, "big")

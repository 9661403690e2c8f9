"""The spans of a kept trace, item by item: which items are spans, and which of several reports of one span is stored. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from prela_stream.codec.spans import decode_head, span_of
from prela_stream.errors import CodecError
from prela_stream.model.span import PENDING, ItemKind, Resource, SpanData, SpanHead

_SPAN_KINDS: Final = frozenset({int(ItemKind.SPAN), int(ItemKind.START)})


def read_span(
    raw: msgspec.Raw, trace_id: bytes, resources: Sequence[Resource], index: int
) -> tuple[SpanHead, bytes, SpanData] | None:
    """Decode an item of a kept trace completely, so that whatever is stored can be read later.

    Args:
        raw: The item.
        trace_id: The trace of its fragment.
        resources: Of its fragment.
        index: Which of them is that of the item.

    Returns:
        Head, span id and span. None for a control item, which only workers need.

    Raises:
        CodecError: The item cannot be read, or it belongs to another trace, or there is no such resource.
    """
    head = decode_head(raw)
    if head.kind not in _SPAN_KINDS:
        return None
    if not 0 <= index < len(resources):
        msg = f"an item refers to resource {index}, but its fragment has {len(resources)} resources"
        raise CodecError(msg)
    span = span_of(head, resources[index])
    if head.trace_id != trace_id or head.span_id is None:
        msg = f"expected spans of trace {trace_id.hex()} in its fragment, got one of trace {span.trace_id}"
        raise CodecError(msg)
    return head, head.span_id, span


def rank_of(head: SpanHead) -> int:
    """Orders the reports of one span: ended after open, then by revision, then a span after the notice of its start."""
    return (head.status != PENDING) << 40 | head.revision << 1 | (head.kind == ItemKind.SPAN)

"""The spans of a kept trace, item by item, for every sink: which items are spans and which report of a span wins. Pure."""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from prela_stream.codec.spans import decode_head, decode_span
from prela_stream.errors import CodecError
from prela_stream.model.span import PENDING, ItemKind, SpanData, SpanHead

T = TypeVar("T")

_SPAN_KINDS: Final = frozenset({int(ItemKind.SPAN), int(ItemKind.START)})


def read_span(raw: msgspec.Raw, trace_id: bytes) -> tuple[SpanHead, bytes, SpanData] | None:
    """An item of a kept trace: head, span id and the whole span without its resource; None for an item that is no span.

    All of it is decoded now: what cannot be read must not come to light when someone looks. Raises CodecError, also for a span
    of another trace.
    """
    head = decode_head(raw)
    if head.kind not in _SPAN_KINDS:
        return None  # a heartbeat or a wait: it says something to the worker, nothing to a reader
    span = decode_span(raw)
    if head.trace_id != trace_id or head.span_id is None:
        msg = f"a span of trace {span.trace_id} stands in a fragment of trace {trace_id.hex()}"
        raise CodecError(msg)
    return head, head.span_id, span


def rank_of(head: SpanHead) -> int:
    """Of several reports of one span: ended before open, then the higher revision, then a span before the notice of its start."""
    return (head.status != PENDING) << 40 | head.revision << 1 | (head.kind == ItemKind.SPAN)


def at(resources: Sequence[T], index: int) -> T:
    """The resource that an item points at; raises CodecError if there is none."""
    if not 0 <= index < len(resources):
        msg = f"an item points at resource {index}, the fragment has {len(resources)}"
        raise CodecError(msg)
    return resources[index]

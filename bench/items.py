"""The items that benchmarks record: spans of model calls of about 1 KB, ten a trace."""

from typing import Final

from prela_stream.codec.spans import encode_item
from prela_stream.model.span import ItemKind

SPANS_A_TRACE: Final = 10
BODY: Final = "x" * 700
_START: Final = 10**18
_DURATION: Final = 10**6
_LLM: Final = 1


def make_span(number: int) -> tuple[bytes, bytes]:
    """Trace id and item of the n-th span."""
    trace_id = (number // SPANS_A_TRACE).to_bytes(16, "big")
    span_id = number.to_bytes(8, "big")
    attributes = {"gen_ai.request.model": "model", "gen_ai.usage.input_tokens": number, "gen_ai.input.messages": BODY}
    head = (None, 0, 1, 0, 0, 0, None, _LLM, _START, _DURATION, "chat", None, None)
    return trace_id, encode_item(ItemKind.SPAN, trace_id, span_id, *head, attributes)

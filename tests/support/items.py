"""Items of the `spans` topic for tests of delivery: only their ids matter."""

from prela_stream.codec.spans import encode_item
from prela_stream.model.span import ItemKind


def make_item(number: int, *, trace: int | None = None, padding: int = 0) -> tuple[bytes, bytes]:
    """Trace id and bytes of a span item; ten numbers make a trace unless `trace` is given. `padding`: bytes of its name."""
    trace_id = (number // 10 if trace is None else trace).to_bytes(16, "big")
    name = "p" * padding
    return trace_id, encode_item(ItemKind.SPAN, trace_id, span_id(number), None, 0, 1, 0, 0, 0, None, 5, 0, 0, name)


def span_id(number: int) -> bytes:
    """The span id of item `number`."""
    return number.to_bytes(8, "big")

"""From a live span's fields to the bytes of an item: whatever the attributes hold, something true arrives."""

from typing import Any, Final

import msgspec

from prela_stream import codec
from prela_stream.model.plain import plain
from prela_stream.sdk.layout import Fields
from prela_stream.sdk.truncation import cut

DEFAULT_LIMIT: Final = 750_000
"""Bytes of an item beyond which its largest values are cut."""


# Without a hook the encoder runs no code of the application for the usual types, so nobody can change a dict meanwhile.
encode_fast: Final = msgspec.msgpack.Encoder().encode
REFUSED: Final = (
    msgspec.MsgspecError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
    AttributeError,
    RuntimeError,
)
"""What `encode_fast` raises for values that MessagePack cannot hold."""
_TRIES: Final = 3


def encode_slow(fields: tuple[Any, ...], limit: int) -> bytes:
    """The item of fields that were refused or are too large: a copy that surely encodes, cut to `limit` bytes."""
    item = Fields(*fields)
    safe = item._replace(
        name=plain(item.name),
        attributes=_copy(item.attributes),
        events=_copy([(event.name, event.time_ns, event.attributes) for event in item.events]),
        links=_copy([(link.trace_id, link.span_id, link.attributes) for link in item.links]),
        status_message=plain(item.status_message),
    )
    encoded = codec.encode_item(*safe)
    return encoded if len(encoded) <= limit else cut(safe, limit)


def _copy(value: Any) -> Any:
    """`plain`, also of a value that another thread is changing."""
    for _ in range(_TRIES):
        try:
            return plain(value)
        except RuntimeError:  # changed size during iteration
            continue
    return {"prela.error": "the value was changed while it was encoded"} if isinstance(value, dict) else []

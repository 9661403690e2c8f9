"""From a live span's fields to the bytes of an item: whatever the attributes hold, something true arrives.

First come the bytes; `sanitized` then decodes what is worth a second look, and takes out what must not be sent or does not fit.
"""

from typing import Any, Final

import msgspec

from prela_stream.codec.spans import encode_item
from prela_stream.errors import guard
from prela_stream.model.plain import plain
from prela_stream.privacy.item_fields import Fields
from prela_stream.privacy.media import may_hold_media, without_media
from prela_stream.privacy.rules import Privacy, without_content
from prela_stream.privacy.truncation import cut

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
_decode: Final = msgspec.msgpack.Decoder().decode


def encode_slow(fields: tuple[Any, ...]) -> bytes:
    """The item of fields that were refused: a copy that surely encodes."""
    item = Fields(*fields)
    return encode_item(
        *item._replace(
            name=plain(item.name),
            attributes=_copy(item.attributes),
            events=_copy([(event.name, event.time_ns, event.attributes) for event in item.events]),
            links=_copy([(link.trace_id, link.span_id, link.attributes) for link in item.links]),
            status_message=plain(item.status_message),
        )
    )


def sanitized(item: bytes, privacy: Privacy, limit: int) -> bytes:
    """An item as it may be sent: without media and what `privacy` takes out, and no larger than `limit` bytes.

    If that fails, what may be content is left out, and the span is sent all the same.
    """
    with guard("span.sanitize"):
        return _sanitized(item, privacy, limit)
    return encode_item(*without_content(Fields(*_decode(item)), "the span could not be looked through"))


def _sanitized(item: bytes, privacy: Privacy, limit: int) -> bytes:
    media = may_hold_media(item)
    if not (media or privacy.is_active or len(item) > limit):
        return item
    fields = Fields(*_decode(item))
    if media:
        fields = fields._replace(
            attributes=without_media(fields.attributes),
            events=without_media(fields.events),
            links=without_media(fields.links),
        )
    if privacy.is_active:
        fields = privacy.apply(fields)
    encoded = encode_item(*fields)
    return encoded if len(encoded) <= limit else cut(fields, limit)


def _copy(value: Any) -> Any:
    """`plain`, also of a value that another thread is changing."""
    for _ in range(_TRIES):
        try:
            return plain(value)
        except RuntimeError:  # changed size during iteration
            continue
    return {"prela.error": "the value was changed while it was encoded"} if isinstance(value, dict) else []

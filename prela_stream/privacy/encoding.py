"""From the fields of a live span to the bytes of an item: whatever the attributes hold, the span is sent.

`encode_fast` encodes fields whose values are plain. `encode_slow` encodes any others: it encodes each value separately, so that a
value which cannot be read costs only itself. `sanitized` then decodes an item that may contain media, is subject to privacy rules
or is too large, and removes what must not be sent. `encode_rest` is for a span that no other function could encode.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from prela_stream.codec.spans import encode_item
from prela_stream.errors import guard
from prela_stream.model.plain import is_plain, is_scalar, name_of, plain
from prela_stream.privacy.item_fields import Fields
from prela_stream.privacy.media import may_hold_media, without_media
from prela_stream.privacy.rules import Privacy, without_content
from prela_stream.privacy.truncation import LEAST_LIMIT, cut

DEFAULT_LIMIT: Final = 750_000
"""Bytes of an item beyond which its largest values are cut."""


# Without a hook the encoder runs no code of the application for plain types, so no dict can change while it is encoded.
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
"""What `encode_fast` raises for values that MessagePack cannot hold, and `is_plain` for a value that changes."""
_ATTRIBUTES: Final = Fields._fields.index("attributes")
_decode: Final = msgspec.msgpack.Decoder().decode


def encode_slow(fields: tuple[Any, ...]) -> bytes:
    """The item of fields that `encode_fast` refused. Each value is encoded separately, or becomes a note."""
    item = Fields(*fields)
    return encode_item(
        *item._replace(
            name=plain(item.name),
            attributes=_encoded(item.attributes),
            events=[(plain(event.name), event.time_ns, _encoded(event.attributes)) for event in item.events],
            links=[(link.trace_id, link.span_id, _encoded(link.attributes)) for link in item.links],
            status_message=plain(item.status_message),
        )
    )


def sanitized(item: bytes, privacy: Privacy, limit: int) -> bytes:
    """An item as it may be sent: without media and what `privacy` removes, and no larger than `limit` bytes.

    If that fails, what may be content is removed, and the span is sent all the same.
    """
    with guard("span.sanitize"):
        return _sanitized(item, privacy, limit)
    return encode_item(*without_content(Fields(*_decode(item)), "the privacy rules could not be applied"))


def shortened(item: bytes, limit: int) -> bytes | None:
    """A span item, cut to `limit` bytes; None if it cannot be cut so far, because it has no attributes or the limit is small."""
    with guard("span.shorten"):
        fields: list[Any] = _decode(item)
        if len(fields) > _ATTRIBUTES and limit >= LEAST_LIMIT:
            smaller = cut(Fields(*fields), limit)
            return smaller if len(smaller) <= limit else None
    return None


def encode_rest(fields: tuple[Any, ...], error: BaseException, privacy: Privacy, limit: int) -> bytes:
    """The item of a span whose content could not be encoded because of `error`, for instance an interrupt.

    It reads no value that can run code: only the scalar attributes are kept, and a note replaces any other. If there are privacy
    rules, which may be what failed, only what is not content under any rule is kept.
    """
    item = Fields(*fields)
    why = f"the span could not be encoded: {type(error).__name__}"
    item = item._replace(
        name=plain(item.name),
        attributes=_scalars(item.attributes, f"{type(error).__name__} when it was read"),
        events=[[plain(event.name), event.time_ns, {}] for event in item.events],
        links=[[link.trace_id, link.span_id, {}] for link in item.links],
        status_message=plain(item.status_message),
    )
    if privacy.is_active:
        return encode_item(*without_content(item, why))
    return _sanitized(encode_item(*item), privacy, limit)


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


def _scalars(attributes: Mapping[str, Any], why: str) -> dict[str, Any]:
    return {
        plain(key): plain(value) if is_scalar(type(value)) else f"<{name_of(type(value))}: {why}>"
        for key, value in list(attributes.items())
    }


def _encoded(attributes: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    pairs: Iterable[tuple[str, Any]] = list(attributes.items())
    return {plain(key): msgspec.Raw(_encoded_value(value)) for key, value in pairs}


def _encoded_value(value: object) -> bytes:
    with suppress(*REFUSED):
        if is_scalar(type(value)) or is_plain(value):
            return encode_fast(value)
    return encode_fast(plain(value))

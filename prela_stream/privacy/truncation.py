"""Cuts an item that is too large for a Record: the largest texts first, until it fits. A span is never dropped for size.

What remains says what happened: a cut text ends in how much is missing, and the span carries `prela.truncated`.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from prela_stream.codec.spans import encode_item
from prela_stream.model.semconv import TRUNCATED
from prela_stream.privacy.item_fields import Fields

_KEEP: Final = 1_000
"""Bytes of the beginning of a text that the first pass leaves."""
_MARK: Final = 40
"""Room for the note at the end of a cut text."""
_SLACK: Final = 64
"""Room for `prela.truncated` itself."""
_size = msgspec.msgpack.Encoder().encode


class _Text(NamedTuple):
    """A long text or bytes value and where it stands."""

    holder: Any
    key: Any
    value: str | bytes
    size: int


def cut(fields: Fields, limit: int) -> bytes:
    """The item, cut to `limit` bytes.

    Args:
        fields: Plain and our own: containers in it are changed. Attributes a dict, events and links lists of lists.
        limit: Bytes of the whole item, at least 4,096 (smaller limits may be exceeded by what is always kept).

    The largest texts go first; of texts of about one size (the same power of two) those that come first, in a conversation
    the oldest messages. Only if all texts are short and it is still too large, whole attributes and events go.
    """
    original = len(_size(fields.attributes)) + len(_size(fields.events))
    fields = fields._replace(
        name=str(_shortened(fields.name, _KEEP)),
        status_message=None if fields.status_message is None else str(_shortened(fields.status_message, 4 * _KEEP)),
    )
    excess = len(encode_item(*fields)) + _SLACK - limit
    for text in _by_size(fields):
        if excess <= 0:
            break
        kept = max(_KEEP, text.size - excess - _MARK)
        text.holder[text.key] = _shortened(text.value, kept)
        excess -= text.size - len(_size(text.holder[text.key]))
    if excess > 0:
        fields = _without_the_largest(fields, excess)
    fields.attributes[TRUNCATED] = original
    return encode_item(*fields)


def _by_size(fields: Fields) -> list[_Text]:
    found = [*_texts(fields.attributes), *_texts(fields.events), *_texts(fields.links)]
    return sorted(found, key=lambda text: -text.size.bit_length())  # stable: within one magnitude the oldest first


def _texts(holder: Any) -> Iterator[_Text]:
    """Every text in nested dicts and lists that is long enough to be worth cutting, in order."""
    for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        if isinstance(value, str | bytes):
            size = len(value.encode()) if isinstance(value, str) else len(value)
            if size > _KEEP + 2 * _MARK:
                yield _Text(holder, key, value, size)
        elif isinstance(value, dict | list):
            yield from _texts(value)


def _shortened(value: str | bytes, kept: int) -> str | bytes:
    raw = value.encode() if isinstance(value, str) else value
    if len(raw) <= kept:
        return value
    if isinstance(value, bytes):
        return raw[:kept]
    return f"{raw[:kept].decode(errors='ignore')}… [{len(raw) - kept} bytes cut]"


def _without_the_largest(fields: Fields, excess: int) -> Fields:
    """Leave whole attributes out, the largest first, then events and links, the oldest first, until `excess` bytes are gone."""
    sizes = {key: len(_size(key)) + len(_size(value)) for key, value in fields.attributes.items()}
    for key in sorted(sizes, key=lambda key: -sizes[key]):
        if excess <= 0:
            return fields
        if sizes[key] > _MARK or len(sizes) > excess // _MARK:
            del fields.attributes[key]
            excess -= sizes[key]
    events, links = list(fields.events), list(fields.links)
    for parts in (events, links):
        while parts and excess > 0:
            excess -= len(_size(parts.pop(0)))
    return fields._replace(events=events, links=links)

"""Cuts an item that is larger than its limit. A span is never dropped for its size, and what people read is cut last.

In this order, and only as far as it is necessary: lists of numbers and bytes become notes; texts are shortened, encoded data
before prose; long lists lose their oldest elements; whole attributes become notes; events and links are dropped.

Everything that is cut is marked: in place with what is missing, and on the span with `prela.truncated` and the counts of what was
dropped.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from prela_stream.codec.spans import encode_item
from prela_stream.model.semconv import DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS, TRUNCATED
from prela_stream.privacy.item_fields import Fields

LEAST_LIMIT: Final = 4_096
"""Bytes to which every item can be cut."""
_KEEP: Final = 1_000
"""Bytes of the beginning of a text that the first pass leaves."""
_MARK: Final = 40
"""Room for the note at the end of a cut text."""
_SLACK: Final = 64
"""Room for `prela.truncated`."""
_COUNTS: Final = 120
"""Room for the counts of what was dropped."""
_SHORT: Final = 100
"""Bytes of a value that is not worth a note."""
_SAMPLE: Final = 1_000
_PROSE: Final = 0.3
"""Share of letters in a text that people read."""
_NUMBERS: Final = frozenset({int, float, bool, type(None)})
_size = msgspec.msgpack.Encoder().encode


class _Piece(NamedTuple):
    """A value that can be cut, where it is, and its bytes."""

    holder: Any
    key: Any
    value: Any
    size: int


def cut(fields: Fields, limit: int) -> bytes:
    """The item, cut to `limit` bytes.

    Of texts of about one size (the same power of two) the first are shortened first: in a conversation the oldest messages.

    Args:
        fields: Plain data that no other code holds, because its containers are changed. Attributes a dict, events and links
            lists of lists.
        limit: Bytes of the whole item, at least `LEAST_LIMIT`.
    """
    before = fields.attributes.get(TRUNCATED)  # it may be cut twice: to the limit of a span, then to that of a topic
    original = len(_size(fields.attributes)) + len(_size(fields.events))
    fields = fields._replace(
        name=_shortened(fields.name, _KEEP),
        status_message=None if fields.status_message is None else _shortened(fields.status_message, 4 * _KEEP),
    )
    for event in fields.events:
        event[0] = _shortened(event[0], _KEEP)
    excess = len(encode_item(*fields)) + _SLACK - limit
    for step in (_note_numbers, _shorten_texts, _shorten_lists):
        if excess > 0:
            excess = step(fields, excess)
    if excess > 0:
        fields = _without_the_largest(fields, excess + _COUNTS)
    fields.attributes[TRUNCATED] = max(original, before) if isinstance(before, int) else original
    return encode_item(*fields)


def _note_numbers(fields: Fields, excess: int) -> int:
    """Replace lists of numbers and bytes by their type and shape, the largest first; returns what is still too much."""
    found = [piece for attributes in _maps(fields) for piece in _numbers(attributes)]
    for piece in sorted(found, key=lambda piece: -piece.size):
        if excess <= 0:
            break
        excess -= _replace(piece, _shape_note(piece.value))
    return excess


def _shorten_texts(fields: Fields, excess: int) -> int:
    found = [piece for attributes in _maps(fields) for piece in _texts(attributes)]
    # Stable: within one magnitude the oldest first.
    for piece in sorted(found, key=lambda piece: (_is_prose(piece.value), -piece.size.bit_length())):
        if excess <= 0:
            break
        excess -= _replace(piece, _shortened(piece.value, max(_KEEP, piece.size - excess - _MARK)))
    return excess


def _shorten_lists(fields: Fields, excess: int) -> int:
    """Remove the oldest elements of long lists, the largest list first; the last element of each is kept."""
    found = [piece for attributes in _maps(fields) for piece in _lists(attributes)]
    for piece in sorted(found, key=lambda piece: -piece.size):
        if excess <= 0:
            break
        count = removed = 0
        sizes = [len(_size(part)) for part in piece.value]
        while count < len(sizes) - 1 and removed < excess + _SHORT:
            removed += sizes[count]
            count += 1
        note: Any = f"[{count} older elements, {removed} bytes cut]"
        if isinstance(piece.value[count], dict):  # readers expect dicts beside dicts
            note = {TRUNCATED: note}
        excess -= _replace(piece, [note, *piece.value[count:]])
    return excess


def _without_the_largest(fields: Fields, excess: int) -> Fields:
    """Replace whole values by notes, then drop attributes, the largest first, then events and links, the oldest first."""
    excess = _note_values(fields, excess)
    attributes = fields.attributes
    sizes = {key: len(_size(key)) + len(_size(value)) for key, value in attributes.items()}
    dropped = 0
    for key in sorted(sizes, key=lambda key: -sizes[key]):
        if excess <= 0 or (sizes[key] <= _MARK and len(sizes) <= excess // _MARK):
            break
        del attributes[key]
        excess -= sizes[key]
        dropped += 1
    counts = [(DROPPED_ATTRIBUTES, dropped)]
    kept: dict[str, list[Any]] = {}
    for name, parts in ((DROPPED_EVENTS, fields.events), (DROPPED_LINKS, fields.links)):
        first = 0
        while first < len(parts) and excess > 0:
            excess -= len(_size(parts[first]))
            first += 1
        kept[name] = list(parts[first:])
        counts.append((name, first))
    for name, count in counts:
        if count:
            attributes[name] = count + (attributes[name] if isinstance(attributes.get(name), int) else 0)
    return fields._replace(events=kept[DROPPED_EVENTS], links=kept[DROPPED_LINKS])


def _note_values(fields: Fields, excess: int) -> int:
    """Replace whole values of attributes by notes, the largest first."""
    found = [
        _Piece(attributes, key, value, len(_size(value)))
        for attributes in _maps(fields)
        for key, value in attributes.items()
    ]
    for piece in sorted(found, key=lambda piece: -piece.size):
        if excess <= 0 or piece.size <= _SHORT:
            break
        excess -= _replace(piece, f"[{type(piece.value).__name__}, {piece.size} bytes cut]")
    return excess


def _replace(piece: _Piece, value: Any) -> int:
    """Put another value in the place of one; returns the bytes that this saves."""
    piece.holder[piece.key] = value
    return piece.size - len(_size(value))


def _maps(fields: Fields) -> Iterator[dict[str, Any]]:
    """The attributes of the span, its events and its links."""
    yield fields.attributes
    for part in (*fields.events, *fields.links):
        yield part[2]


def _inside(holder: Any) -> list[tuple[Any, Any]]:
    return list(holder.items() if isinstance(holder, dict) else enumerate(holder))


def _numbers(holder: Any) -> Iterator[_Piece]:
    """The largest parts that consist of numbers alone, and bytes, if they are worth a note."""
    for key, value in _inside(holder):
        if isinstance(value, bytes) or (isinstance(value, dict | list) and _are_numbers(value)):
            if (size := len(_size(value))) > _SHORT:
                yield _Piece(holder, key, value, size)
        elif isinstance(value, dict | list):
            yield from _numbers(value)


def _are_numbers(value: dict[str, Any] | list[Any]) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    if _NUMBERS.issuperset(map(type, parts)):
        return True
    return all(type(part) in _NUMBERS or (isinstance(part, dict | list) and _are_numbers(part)) for part in parts)


def _texts(holder: Any) -> Iterator[_Piece]:
    """Every text in nested dicts and lists that is long enough to be shortened, in order."""
    for key, value in _inside(holder):
        if isinstance(value, str):
            size = len(value.encode())
            if size > _KEEP + 2 * _MARK:
                yield _Piece(holder, key, value, size)
        elif isinstance(value, dict | list):
            yield from _texts(value)


def _lists(holder: Any) -> Iterator[_Piece]:
    """The outermost lists of several elements that are large enough to lose some."""
    for key, value in _inside(holder):
        if isinstance(value, list) and len(value) > 1:
            if (size := len(_size(value))) > _KEEP:
                yield _Piece(holder, key, value, size)
        elif isinstance(value, dict):
            yield from _lists(value)


def _is_prose(text: str) -> bool:
    """Whether people read this text: not encoded data, which has no spaces, and not numbers as text."""
    sample = text[:_SAMPLE]
    if sample.isascii() and not any(map(str.isspace, sample)):
        return False
    return sum(map(str.isalpha, sample)) >= _PROSE * len(sample)


def _shortened(text: str, kept: int) -> str:
    raw = text.encode()
    return text if len(raw) <= kept else f"{raw[:kept].decode(errors='ignore')}… [{len(raw) - kept} bytes cut]"


def _shape_note(value: Any) -> str:
    if isinstance(value, bytes):
        return f"[bytes, {len(value)} bytes]"
    if isinstance(value, dict):
        return f"[dict of {len(value)} entries with numbers]"
    kinds = {kind.__name__ for kind in _leaf_types(value)} - {"NoneType"}
    shape = _shape(value)
    return f"[list of {kinds.pop() if len(kinds) == 1 else 'numbers'}, shape {shape}]"


def _shape(value: Any) -> tuple[int, ...]:
    """Lengths of nested lists, as far as all lists of one level have the same."""
    if not isinstance(value, list):
        return ()
    shapes = {_shape(part) for part in value}
    return (len(value), *shapes.pop()) if len(shapes) == 1 else (len(value),)


def _leaf_types(value: Any) -> set[type]:
    if not isinstance(value, dict | list):
        return {type(value)}
    parts = value.values() if isinstance(value, dict) else value
    kinds = set(map(type, parts))
    return kinds if kinds <= _NUMBERS else set().union(*map(_leaf_types, parts))

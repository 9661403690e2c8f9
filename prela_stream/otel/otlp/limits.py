"""Refuses requests that would need far more memory or time than their bytes, before they are parsed.

A body of 20 MiB may hold ten million empty messages or lists, each of which becomes an object of a hundred bytes. No exporter
sends such a request. The check of a usual request costs less than a thousandth of its conversion.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from prela_stream.errors import CodecError

MOST_SPANS: Final = 200_000
"""Of a request, rejected ones too."""
MOST_PARTS: Final = 10_000
"""Attributes, events or links of a span, and attributes of a resource, an event or a link."""
MOST_VALUES: Final = 200_000
"""Of one attribute, with its lists and maps: each member of a list counts twice, because it is a message in a field."""
SMALL: Final = 1 << 20
"""Bytes. A smaller request has too little space for too many parts."""
_SMALL_PART: Final = 16 << 10
"""Bytes of a span or an attribute, as above."""
_MOST_BYTES_OF_OBJECTS: Final = 200_000_000
_OF_A_BRACKET, _OF_A_COMMA = 120, 30
"""About what a list or map, and what another value need in Python, in bytes."""
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def check_json(data: bytes) -> None:
    """Raise CodecError if the document would become too many objects."""
    if len(data) > SMALL and _objects(data) > _MOST_BYTES_OF_OBJECTS:
        inner = _STRINGS.sub(b"", data)  # the brackets and commas of texts become no objects
        if _objects(inner) > _MOST_BYTES_OF_OBJECTS:
            msg = f"the {len(data):,} bytes of JSON have too many lists, maps and values: send fewer spans in a request"
            raise CodecError(msg)


def _objects(data: bytes) -> int:
    return (data.count(b"[") + data.count(b"{")) * _OF_A_BRACKET + data.count(b",") * _OF_A_COMMA


def check_protobuf(data: bytes) -> None:
    """Raise CodecError if the message has too many spans, or groups of them. Other bytes pass: the parser reports them."""
    if len(data) > SMALL:
        try:
            found = _count(data, 0, len(data), 0, 0)
        except IndexError:
            return
        check_spans(found)


def check_span(data: bytes) -> None:
    """Raise CodecError if the bytes of a span have too many fields."""
    if len(data) > _SMALL_PART:
        number = 0
        try:
            for _ in _fields(data, 0, len(data)):
                number += 1
                if number > 4 * MOST_PARTS:
                    msg = f"it has more than {MOST_PARTS:,} attributes, events or links"
                    raise CodecError(msg)
        except IndexError:
            return


def check_attribute(data: bytes) -> None:
    """Raise CodecError if the bytes of a `KeyValue` have too many values."""
    if len(data) > _SMALL_PART:
        try:
            number = _values(data, 0, len(data), _PAIR, 0, 0)
        except IndexError:
            return
        if number > MOST_VALUES:
            msg = f"an attribute has more than {MOST_VALUES:,} values"
            raise CodecError(msg)


def check_spans(number: int) -> None:
    """Raise CodecError for more spans than a request may have."""
    if number > MOST_SPANS:
        msg = f"the request has more than {MOST_SPANS:,} spans: send fewer in a request"
        raise CodecError(msg)


def check_parts(parts: Sequence[Any], what: str) -> None:
    """Raise CodecError for more attributes, events or links than a part of a request may have."""
    if len(parts) > MOST_PARTS:
        msg = f"it has {len(parts):,} {what}, of which {MOST_PARTS:,} are allowed"
        raise CodecError(msg)


_BELOW: Final = ({1}, {2, 1000}, {2})
"""Numbers of the fields with resource spans, scope spans and spans."""
_PAIR, _VALUE, _LIST, _MAP = range(4)
_INNER: Final = ({2: _VALUE}, {5: _LIST, 6: _MAP}, {1: _VALUE}, {1: _PAIR})
"""What the fields of a pair, a value, a list and a map hold, by their numbers."""
_MAX_DEPTH: Final = 256


def _count(data: bytes, at: int, end: int, level: int, found: int) -> int:
    """The number of fields down to the spans, until there are too many."""
    for number, start, stop in _fields(data, at, end):
        found += 1
        if number in _BELOW[level] and level + 1 < len(_BELOW):
            found = _count(data, start, stop, level + 1, found)
        if found > MOST_SPANS:
            break
    return found


def _values(data: bytes, at: int, end: int, kind: int, depth: int, found: int) -> int:
    """The number of fields in a pair, a value, a list or a map, until there are too many."""
    if depth > _MAX_DEPTH:
        return found
    inner = _INNER[kind]
    for number, start, stop in _fields(data, at, end):
        found += 1
        if number in inner:
            found = _values(data, start, stop, inner[number], depth + 1, found)
        if found > MOST_VALUES:
            break
    return found


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field, of a number without contents start = end. IndexError: the bytes end too early."""
    while at < end:
        tag, at = varint(data, at)
        start = at
        match tag & 7:
            case 0:
                _, at = varint(data, at)
                start = at
            case 1:
                start = at = at + 8
            case 5:
                start = at = at + 4
            case 2:
                size, start = varint(data, at)
                at = start + size
            case _:
                raise IndexError
        if tag < 8:
            raise IndexError  # no field has the number 0
        yield tag >> 3, start, min(at, end)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, 64 bits without a sign, and where it ends. IndexError: the bytes end too early."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift > 63:
            raise IndexError

"""Attributes of OTLP from the bytes of their `KeyValue` messages.

The usual form, written by every exporter, is read here byte by byte: key, then value, each once, lengths in the shortest form.
All other bytes go to the parser of `protobuf`.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from prela_stream.errors import CodecError
from prela_stream.otel.otlp.limits import MOST_PARTS, check_attribute, check_parts, varint

_MAX_DEPTH: Final = 64
_MOST_ENTRIES: Final = 8_192
_MOST_VALUES: Final = 64
_LONGEST_ENTRY: Final = 96
"""Bytes. The cache holds less than 2 MB."""
_MOST_HEADS: Final = 4_096
_double: Final = struct.Struct("<d").unpack_from
_KEY, _VALUE = 0x0A, 0x12
_STRING, _BOOLEAN, _INTEGER, _DOUBLE = 0x0A, 0x10, 0x18, 0x21
"""The first byte of an `AnyValue`: the number of its field and its wire type."""
_attributes: Final[dict[bytes, tuple[str, Any]]] = {}
"""What whole attributes mean: most values of a process repeat, such as the name of its model."""
_values: Final[dict[str, int]] = {}
"""How many values of a key are in `_attributes`. A key with many, such as the id of an answer, is not worth its place."""
_keys: Final[dict[bytes, str]] = {}
"""Keys by the bytes of their field. The bytes of a field end where it ends: no other attribute begins like one of these."""


def attributes_of(raws: Sequence[bytes]) -> dict[str, Any]:
    """The attributes of these `KeyValue` messages. Of two with one key the last counts. Raises CodecError, also for too many.

    Values may be shared between spans, lists too: nothing may change them.
    """
    if len(raws) > MOST_PARTS:
        check_parts(raws, "attributes")
    found: dict[str, Any] = {}
    known = _attributes.get
    for raw in raws[:]:  # a list: protobuf's own iterator ends with an error whose text takes time to make
        pair = known(raw)
        if pair is None:
            key, value = _quick(raw) or _usual(raw) or _any(raw)
            if len(raw) <= _LONGEST_ENTRY and (seen := _values.get(key, 0)) < _MOST_VALUES:
                _keep(raw, (key, value), seen)
        else:
            key, value = pair
        found[key] = value
    return found


def _keep(raw: bytes, pair: tuple[str, Any], seen: int) -> None:
    if len(_attributes) >= _MOST_ENTRIES or len(_values) >= _MOST_ENTRIES:
        _attributes.clear()
        _values.clear()
        seen = 0
    _attributes[raw] = pair
    _values[pair[0]] = seen + 1


def _quick(raw: bytes) -> tuple[str, Any] | None:
    """As `_usual`, for the most frequent attributes: those of a known key, with the fewest steps. None for any other."""
    try:
        at = 2 + raw[1]
        key = _keys[raw[:at]]
        size = len(raw) - at - 2
        if size > 127:
            head = _head(size + 2)
            return (key, raw[at + len(head) :].decode()) if raw.startswith(head, at) else None
        if raw[at + 1] != size or raw[at] != _VALUE:
            return None
        kind = raw[at + 2]
        if kind == _STRING:
            return (key, raw[at + 4 :].decode()) if raw[at + 3] == size - 2 else None
        if kind == _INTEGER:
            low = raw[at + 3]
            if size == 3 and low > 127 > raw[-1]:
                return key, low & 0x7F | raw[-1] << 7
            if size == 4 and low > 127 < raw[-2] and raw[-1] < 128:
                return key, low & 0x7F | (raw[-2] & 0x7F) << 7 | raw[-1] << 14
            return (key, low) if size == 2 and low < 128 else None
        return (key, _double(raw, at + 3)[0]) if kind == _DOUBLE and size == 9 else None
    except (IndexError, KeyError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=_MOST_HEADS)
def _head(size: int) -> bytes | tuple[()]:
    """What is before the text in a value field of this many bytes; empty if no text is so long, which no bytes start with."""
    for inner in (size - 2, size - 3, size - 4, size - 5):
        outer = b"\x12" + _encoded(inner)
        for length in (inner - 2, inner - 3, inner - 4, inner - 5):
            head = outer + b"\x0a" + _encoded(length)
            if length >= 0 and len(outer) + inner == size and len(head) + length == size:
                return head
    return ()


def _encoded(number: int) -> bytes:
    """A number of variable length, in the shortest form."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _usual(raw: bytes) -> tuple[str, Any] | None:
    """Key and value of the usual form; None for any other."""
    try:
        at = 2 + raw[1]
        if raw[0] != _KEY or at > 129 or raw[at] != _VALUE:
            return None
        length, start = raw[at + 1], at + 2
        if length > 127:
            length, start = varint(raw, at + 1)
        if start + length != len(raw):
            return None
        kind = raw[start]
        value: Any
        if kind == _STRING:
            length, first = varint(raw, start + 1)
            if first + length != len(raw):
                return None
            value = str(raw[first:], "utf-8", "replace")
        else:
            value = _READERS[kind](raw, start + 1)
    except (IndexError, KeyError):
        return None
    field = raw[:at]
    key = _keys.get(field)
    if key is None:
        key = str(field[2:], "utf-8", "replace")
        if len(_keys) < _MOST_ENTRIES:
            _keys[field] = key
    return key, value


def _integer(raw: bytes, at: int) -> int:
    number, end = varint(raw, at)
    if end != len(raw):
        raise IndexError
    return number - (1 << 64) if number >= 1 << 63 else number


def _boolean(raw: bytes, at: int) -> bool:
    return _integer(raw, at) != 0


def _float(raw: bytes, at: int) -> float:
    if at + 8 != len(raw):
        raise IndexError
    number: float = _double(raw, at)[0]
    return number


_READERS: Final[Mapping[int, Callable[[bytes, int], Any]]] = {
    _BOOLEAN: _boolean,
    _INTEGER: _integer,
    _DOUBLE: _float,
}


def _any(raw: bytes) -> tuple[str, Any]:
    check_attribute(raw)
    try:
        pair = KeyValue.FromString(raw)
    except DecodeError as error:
        msg = "an attribute is no KeyValue message of OTLP, or its text is not UTF-8"
        raise CodecError(msg) from error
    return pair.key, value_of(pair.value)


def value_of(value: AnyValue, depth: int = 0) -> Any:
    """The value of an `AnyValue` message; None if it has none."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return None if depth > _MAX_DEPTH else [value_of(one, depth + 1) for one in value.array_value.values]
    if kind == "kvlist_value":
        pairs = value.kvlist_value.values
        return None if depth > _MAX_DEPTH else {one.key: value_of(one.value, depth + 1) for one in pairs}
    return None if kind is None else getattr(value, kind)

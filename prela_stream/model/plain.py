"""Converts any value to one that MessagePack can encode: the slow path, for values that the encoder rejected.

Attribute values come from applications, so this module does not trust their size, their text form, or that they are finite.
Secrets never become part of the result. A secret is an object with a method `get_secret_value`, such as pydantic's `SecretStr`.
"""

import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from prela_stream.errors import guard

CONCEALED: Final = "[secret]"
"""The text that replaces a secret."""
_MAX_TEXT: Final = 1000
_MAX_DEPTH: Final = 32
_INT64: Final = 1 << 63
_MOST_DECIMAL_BITS: Final = 2048  # Python refuses the decimal digits of much larger numbers
_REPR_GUARD: Final = guard("the text form of an attribute value")
SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None)})
are_scalars: Final = SCALARS.issuperset
"""Whether all of these types are scalars. It is a C function, because every span calls it."""
_TEXT_KEYS: Final = frozenset({str}).issuperset
_FIELDS_GUARD: Final = guard("the fields of an attribute value")
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
_REFUSED: Final = (msgspec.MsgspecError, OverflowError, RecursionError, TypeError, ValueError)


def safe_text(value: object) -> str:
    """The text form of a value that MessagePack cannot encode: its repr, cut to 1,000 characters. Never raises."""
    if holds_secret(value):
        return CONCEALED
    text = f"<{type(value).__name__}: it has no text form>"
    with _REPR_GUARD:
        text = _sound(repr(value))
    return _cut(text)


def plain(value: object, depth: int = 0) -> Any:
    """A copy of any value that MessagePack can encode.

    Secrets become `CONCEALED`, integers beyond 64 bits text, lone surrogates are escaped, keys become text, nesting below 32
    levels (as in a cycle) becomes text, and every other value that MessagePack cannot encode becomes its `safe_text`.
    """
    if value is None or isinstance(value, bool):
        return value
    if type(value) not in SCALARS and is_secret(value):
        return CONCEALED
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return _sound(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _container(value, depth) if depth < _MAX_DEPTH else f"<{type(value).__name__}: nested too deep>"
    return _object(value, depth)


def refuse_unless_plain(value: object) -> None:
    """Raise TypeError if `is_plain` is false, as the encoder does for values that it rejects."""
    if not is_plain(value):
        msg = f"expected text keys, lists and scalars, got {type(value).__name__}"
        raise TypeError(msg)


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether a dict, list or tuple consists of text keys and plain values only, so that it can be encoded unchanged.

    It is false for values that the encoder accepts and no reader can decode: `msgspec.Raw`, which is copied whatever it contains,
    and keys that decode to an unhashable value. May raise RuntimeError if another thread changes the value.
    """
    if type(value) is dict:
        if not _TEXT_KEYS(map(type, value)):
            return False
        parts: Collection[object] = value.values()
    elif type(value) is list or type(value) is tuple:
        parts = value
    else:
        return False
    if are_scalars(map(type, parts)):
        return True
    return depth < _MAX_DEPTH and all(type(part) in SCALARS or is_plain(part, depth + 1) for part in parts)


def is_secret(value: object) -> bool:
    """Whether a value is a secret. Runs no code of the value."""
    return inspect.getattr_static(type(value), "get_secret_value", None) is not None


def holds_secret(value: object) -> bool:
    """Whether the value contains a secret in its containers, dataclasses or Structs, which the encoder would encode."""
    pending: list[Any] = [value]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if type(part) in SCALARS or id(part) in seen:
            continue
        if type(part) not in _CONTAINERS and is_secret(part):
            return True
        seen.add(id(part))
        if isinstance(part, dict):
            pending += [*part, *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            pending += part
        else:
            pending += (inner for _, inner in _fields(part))
    return False


def _fields(value: object) -> list[tuple[str, Any]]:
    """Names and values of the fields of a dataclass, an attrs class or a Struct, which MessagePack encodes as a map."""
    kind = type(value)
    names: Iterable[str]
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif isinstance(declared := inspect.getattr_static(kind, "__dataclass_fields__", None), dict):
        names = declared
    elif isinstance(declared := inspect.getattr_static(kind, "__attrs_attrs__", None), tuple):
        names = [attribute.name for attribute in declared]
    else:
        return []
    found: list[tuple[str, Any]] = []
    for name in names:
        with _FIELDS_GUARD:  # a property of the application may raise
            if hasattr(value, name):
                found.append((name, getattr(value, name)))
    return found


def _object(value: object, depth: int) -> Any:
    if depth < _MAX_DEPTH and holds_secret(value):
        return {name: plain(part, depth + 1) for name, part in _fields(value)}
    try:
        decoded = msgspec.msgpack.decode(_encoder.encode(value))
    except _REFUSED:
        return safe_text(value)
    if isinstance(decoded, dict | list):  # of a Struct or a dataclass, whose keys may be anything
        return plain(decoded, depth)
    return safe_text(value) if isinstance(decoded, msgspec.msgpack.Ext) else decoded


def _container(value: Mapping[Any, Any] | Collection[Any], depth: int) -> dict[str, Any] | list[Any]:
    if isinstance(value, Mapping):
        return {_key(key): plain(part, depth + 1) for key, part in value.items()}
    return [plain(part, depth + 1) for part in value]


def _integer(value: int) -> int | str:
    """The integer as `int`; as text if it exceeds 64 bits."""
    if -_INT64 <= value < 2 * _INT64:
        return int.__index__(value)
    return _cut(str(value) if value.bit_length() < _MOST_DECIMAL_BITS else hex(value))


def _key(key: object) -> str:
    return _sound(key) if isinstance(key, str) and not is_secret(key) else safe_text(key)


def _sound(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot encode."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=safe_text)

"""Any value of an application as one that MessagePack can hold. This is the slow path, for values that the encoder rejects.

Attributes come from other people's code, so nothing here trusts a value: it may raise, change while it is read, contain itself,
be huge or be lazy. The unit of failure is one value: a value that cannot be read becomes a note, and those beside it are kept.
Secrets, which are objects with a method `get_secret_value` such as pydantic's `SecretStr`, never become part of anything.
"""

from collections import UserList, UserString, deque
from collections.abc import Callable, Collection, ItemsView, Iterable, KeysView, Mapping, ValuesView
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import msgspec

from prela_stream.errors import HostCall, guard
from prela_stream.model.arrays import array_note, is_array, items_of_array
from prela_stream.model.object_fields import FieldReader, declared_fields, readers, static

CONCEALED: Final = "[secret]"
"""What replaces a secret."""
_MAX_TEXT: Final = 1000
_MAX_DEPTH: Final = 32
_MAX_VALUES: Final = 50_000
"""Values that are read of one attribute: many more than fit into an item."""
_TOO_MANY: Final = f"[more than {_MAX_VALUES:,} values]"
_MAX_CONTAINERS: Final = 20_000
"""Dicts and lists in a value that is encoded without a copy."""
_TRIES: Final = 3
_INT64: Final = 1 << 63
_MAX_DECIMAL_BITS: Final = 2048  # Python refuses the decimal digits of much larger numbers
_MAX_BITS: Final = 1 << 22
SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None)})
_SCALAR_IDS: Final = frozenset(map(id, SCALARS))
are_scalars: Final = SCALARS.issuperset
"""Of types: whether their values contain no others. A C function, because each span calls it."""
_are_text: Final = frozenset({str}).issuperset
_are_numbers: Final = frozenset({int, float, bool, type(None)}).issuperset
_BUILT_IN_LISTS: Final = frozenset(map(id, (list, tuple, set, frozenset)))
_SCALAR_BASES: Final = (int, float, str, bytes, bytearray, memoryview)
_LISTS: Final = (list, tuple, set, frozenset, deque, UserList, KeysView, ValuesView, ItemsView)
_TEXT_IS_STR: Final = (date, time, timedelta, Decimal, UUID, UserString, PurePath)
"""Types whose `str()` is a better text form than their `repr()`."""
_CODED: Final = (date, time, timedelta, Decimal, UUID, msgspec.Raw, msgspec.msgpack.Ext)
"""Types for which MessagePack, or its encoder, has a form."""
_CONTAINERS: Final = frozenset({*_BUILT_IN_LISTS, id(dict)})
_REFUSED: Final = (msgspec.MsgspecError, OverflowError, RecursionError, TypeError, ValueError)
_VALUE_GUARD: Final = guard("an attribute value")
_REPR_GUARD: Final = guard("the text form of an attribute value")
_encode: Final = msgspec.msgpack.Encoder().encode
_value_call: Final = HostCall()
_text_call: Final = HostCall()
_NESTED: Final = "<{}: not read, because it was reached from another value>"


def safe_text(value: object) -> str:
    """The text form of a value that MessagePack cannot hold, of at most about 1,000 characters; never raises."""
    if holds_secret(value):
        return CONCEALED
    text = f"<{name_of(type(value))}: it has no text form>"
    with _REPR_GUARD:
        text = _sound(_text_form(value))
    return cut_text(text)


def plain(value: object) -> Any:
    """A copy of any value that surely encodes. It does not raise, except under PRELA_STRICT.

    Objects with declared fields become dicts of them, other containers dicts and lists, secrets `CONCEALED`, integers beyond 64
    bits text, and whatever else MessagePack cannot hold its `safe_text`. Lone surrogates are escaped, and keys become text. Notes
    in brackets replace values that raise, contain themselves, or are too many or nested too deep.

    A value can use this package while it is read, and so have itself read without end. So inside of another call, values that can
    run code are not read.
    """
    with _value_call as nested:
        return _Copier(reads_objects=not nested).copy(value, 0)


def refuse_unless_plain(value: object) -> None:
    """Raise TypeError unless `is_plain`; the encoder raises TypeError for the other values that it rejects."""
    if not is_plain(value):
        msg = f"expected text keys, lists and scalars, got {type(value).__name__}"
        raise TypeError(msg)


def is_scalar(kind: type) -> bool:
    """Whether a type is one of `SCALARS`. It is compared by identity: a metaclass may forbid the hash of its classes."""
    return id(kind) in _SCALAR_IDS


def is_plain(value: object) -> bool:
    """Whether a dict, list or tuple consists of text keys and plain values alone, so that it may be encoded without a copy.

    False for what the encoder accepts and no reader can decode: `msgspec.Raw`, which is copied unread, and keys that decode to
    something unhashable. False also for what is too large or too deep. May raise RuntimeError if another thread changes it.
    """
    level: list[Any] = [value]
    seen = 0
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for part in level:
            kind = type(part)
            if kind is dict:
                if not _are_text(map(type, part)):
                    return False
                parts: Collection[object] = part.values()
            elif kind is list or kind is tuple:
                parts = part
            else:
                return False
            if not are_scalars(map(type, parts)):
                inner += [
                    one
                    for one in parts  # is_scalar, without a call for most values
                    if (kind := type(one)) is not str and kind is not int and id(kind) not in _SCALAR_IDS
                ]
        if not inner:
            return True
        seen += len(inner)
        if seen > _MAX_CONTAINERS:
            return False
        level = inner
    return False


def is_secret(value: object) -> bool:
    """Whether a value reveals its secret only through a method. Runs no code of the value."""
    return static(type(value), "get_secret_value") is not None


def holds_secret(value: object) -> bool:
    """Whether there is a secret in a value that has no end for its text form: containers and declared fields are searched.

    True also for a value of which too much would have to be searched.
    """
    pending: list[Any] = [value]
    seen: dict[int, object] = {}  # holds the objects, so that no id is used twice
    while pending:
        part = pending.pop()
        if is_scalar(type(part)) or id(part) in seen:
            continue
        if id(type(part)) not in _CONTAINERS and is_secret(part):
            return True
        seen[id(part)] = part
        if len(seen) > _MAX_VALUES:
            return True
        with _VALUE_GUARD:
            pending += _parts(part)
    return False


def _parts(value: object) -> Iterable[Any]:
    kind = type(value)
    if issubclass(kind, dict):
        return [part for pair in _snapshot(lambda: dict.items(value), _MAX_VALUES) for part in pair]  # type: ignore[arg-type]
    if issubclass(kind, list | tuple | set | frozenset):
        return _snapshot(lambda: value, _MAX_VALUES)  # type: ignore[arg-type,return-value]
    found = []
    for _, read in declared_fields(value) or ():
        with _VALUE_GUARD:
            found.append(read())
    return found


class _Copier:
    """Copies one value, within bounds on depth and number."""

    __slots__ = ("_left", "_path", "_reads_objects")

    def __init__(self, *, reads_objects: bool) -> None:
        self._reads_objects = reads_objects
        self._left = _MAX_VALUES
        self._path: set[int] = set()

    def copy(self, value: object, depth: int) -> Any:
        kind = type(value)
        if is_scalar(kind):
            return _sound(value) if kind is str else _integer(value) if kind is int else value  # type: ignore[arg-type]
        if id(value) in self._path:
            return f"<{name_of(kind)}: contains itself>"
        why = "error"
        self._path.add(id(value))
        with _VALUE_GUARD:
            try:
                return self._read(value, kind, depth)
            except Exception as error:
                why = name_of(type(error))
                raise
            finally:
                self._path.discard(id(value))
        return f"<{name_of(kind)}: {why} when it was read>"

    def _read(self, value: Any, kind: type, depth: int) -> Any:
        built_in = id(kind) in _CONTAINERS
        if not (built_in or self._reads_objects or any(kind is one for one in _CODED)):
            return _NESTED.format(name_of(kind))
        if not built_in and is_secret(value):
            return CONCEALED
        if issubclass(kind, _SCALAR_BASES):
            return _scalar(value, kind)
        if depth >= _MAX_DEPTH:
            return f"<{name_of(kind)}: nested too deep>"
        if self._left <= 0:
            return _TOO_MANY
        if issubclass(kind, Mapping):
            pairs, more = self._some(value.items, value)
            return self._dict(readers(pairs), depth, more)
        if not built_in and (fields := declared_fields(value)) is not None:
            self._left -= len(fields)
            found = self._dict(fields, depth, None)
            return found["root"] if static(kind, "__pydantic_root_model__") is True else found
        if issubclass(kind, _LISTS):
            return self._list(value, kind, depth)
        return self._other(value, kind, depth)

    def _other(self, value: Any, kind: type, depth: int) -> Any:
        if issubclass(kind, Enum):
            return self.copy(value._value_, depth + 1)
        if is_array(value):
            items = items_of_array(value)
            return array_note(value) if items is None else self.copy(items, depth + 1)
        return _coded(value) if issubclass(kind, _CODED) else safe_text(value)

    def _dict(self, fields: list[FieldReader], depth: int, more: str | None) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, read in fields:
            name = _key(key)
            while name in copied:  # two keys may have the same text form
                name = f"{_key(key)} ({len(copied) + 1})"
            copied[name] = self._field(read, depth)
        if more is not None:
            copied["…"] = more
        return copied

    def _field(self, read: Callable[[], object], depth: int) -> Any:
        why = "error"
        with _VALUE_GUARD:
            try:
                part = read()
            except Exception as error:
                why = name_of(type(error))
                raise
            return self.copy(part, depth + 1)
        return f"<{why} when it was read>"

    def _list(self, value: Any, kind: type, depth: int) -> list[Any]:
        if id(kind) in _BUILT_IN_LISTS:
            numbers = list(value)
            if _are_numbers(map(type, numbers)) and all(
                type(number) is not int or -_INT64 <= number < 2 * _INT64 for number in numbers
            ):
                return numbers
        parts, more = self._some(lambda: value, value)
        copied = [self.copy(part, depth + 1) for part in parts]
        return copied if more is None else [*copied, more]

    def _some(self, source: Callable[[], Iterable[Any]], container: Collection[Any]) -> tuple[list[Any], str | None]:
        """The elements of a container, as many as the bound allows, and a note on the others."""
        limit = self._left
        parts = _snapshot(source, limit)
        self._left -= len(parts)
        if len(parts) < limit or (size := len(container)) == limit:
            return parts, None
        return parts, f"[{size - limit} more]" if size > limit else "[more]"  # its iteration may not end


def _snapshot(source: Callable[[], Iterable[Any]], limit: int) -> list[Any]:
    """The elements of a container that another thread may be changing."""
    for _ in range(_TRIES - 1):
        try:
            return list(islice(source(), limit))
        except RuntimeError:  # changed size during iteration
            continue
    return list(islice(source(), limit))


def _coded(value: object) -> Any:
    try:
        decoded = msgspec.msgpack.decode(_encode(value))
    except _REFUSED:
        return safe_text(value)
    if isinstance(decoded, dict | list):  # of a Raw value, whose keys may be anything
        return _Copier(reads_objects=True).copy(decoded, 0)
    return safe_text(value) if isinstance(decoded, msgspec.msgpack.Ext) else decoded


def _scalar(value: Any, kind: type) -> Any:
    """The plain value of a subclass of a scalar type."""
    if issubclass(kind, int):
        return _integer(value)
    if issubclass(kind, float):
        return float.__float__(value)
    return _sound(value) if issubclass(kind, str) else bytes(value)


def _text_form(value: object) -> str:
    kind = type(value)
    with _text_call as nested:
        if nested:
            return _NESTED.format(name_of(kind))
        if issubclass(kind, _TEXT_IS_STR) or (
            static(kind, "__repr__") is object.__repr__ and static(kind, "__str__") is not object.__str__
        ):
            return str(value)  # text that is made when it is needed, such as a translation
        return repr(value)


def _integer(value: int) -> int | str:
    """The plain number of a subclass; text beyond 64 bits."""
    number = int.__index__(value)
    if -_INT64 <= number < 2 * _INT64:
        return number
    bits = number.bit_length()
    if bits > _MAX_BITS:
        return f"<int: {bits} bits>"
    return cut_text(str(number) if bits < _MAX_DECIMAL_BITS else hex(number))


def _key(key: object) -> str:
    kind = type(key)
    if is_scalar(kind):
        return _sound(key) if kind is str else cut_text(_sound(repr(key))) if kind is not int else str(_integer(key))  # type: ignore[arg-type]
    return _sound(key) if issubclass(kind, str) and not is_secret(key) else safe_text(key)  # type: ignore[arg-type]


def _sound(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot encode."""
    if type(text) is str and str.isascii(text):
        return text
    return str.encode(text, "utf-8", "backslashreplace").decode()


def cut_text(text: str) -> str:
    """The text, or its first 1,000 characters with a mark that counts the others."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… [{len(text) - _MAX_TEXT} characters cut]"


def name_of(kind: type) -> str:
    """The name of a class, whatever its metaclass does."""
    return str(type.__dict__["__name__"].__get__(kind))

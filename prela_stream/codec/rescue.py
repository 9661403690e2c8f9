"""Finds the boundaries of MessagePack values without recursion and without trusting any length.

The codec decodes records with msgspec, in C. If msgspec rejects a whole record, because it is truncated or nested deeper than the
stack, this module finds the items that are still readable. It is slow (one step per value) and never reads past the end.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

_FIXED: Final[Mapping[int, int]] = dict(
    [(code, 1) for code in (0xC0, 0xC2, 0xC3)]  # nil, false, true
    + [(0xCA, 5), (0xCB, 9), (0xCC, 2), (0xCD, 3), (0xCE, 5), (0xCF, 9), (0xD0, 2), (0xD1, 3), (0xD2, 5), (0xD3, 9)]
    + [(0xD4, 3), (0xD5, 4), (0xD6, 6), (0xD7, 10), (0xD8, 18)]  # above the numbers, here ext of 1 to 16 bytes
)
"""Size in bytes of a value whose first byte determines it."""
_SIZED: Final[Mapping[int, tuple[int, int]]] = {
    code: (1 << exponent, type_byte)
    for first, type_byte in ((0xC4, 0), (0xC7, 1), (0xD9, 0))  # bin, ext, str, each with a length of 1, 2 or 4 bytes
    for exponent, code in enumerate(range(first, first + 3))
}
"""Width of the length field after the first byte, and the bytes that the length does not include."""
_COUNTED: Final[Mapping[int, tuple[int, int]]] = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Width of the count field after the first byte of an array or a map, and the values per entry."""


_MOST_STEPS: Final = 300_000
"""Most values in a record that is split. A step takes half a microsecond."""
PIECE_STEPS = 2_048
"""So many steps are taken in a millisecond."""


class FramingError(ValueError):
    """The bytes do not contain a whole MessagePack value."""


class TooLongError(FramingError):
    """The bytes contain too many values to be split."""


class _Steps:
    """How many values may still be walked through."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _MOST_STEPS


def end_of(data: memoryview, start: int, steps: _Steps | None = None) -> int:
    """The offset after the value that starts at `start`. Raises FramingError if the value is truncated.

    With `steps`, raises TooLongError if it contains more values than are left of them.
    """
    walk = _walk(data, start, steps)
    while True:
        try:
            next(walk)
        except StopIteration as done:
            return int(done.value)


def _walk(data: memoryview, start: int, steps: _Steps | None) -> Generator[None, None, int]:
    """As `end_of`; yields after each `PIECE_STEPS` values, those of earlier calls with the same `steps` included."""
    at, values, taken = start, 1, 0
    most = None if steps is None else steps.left
    while values:
        at, inner = _step(data, at)
        values += inner - 1
        taken += 1
        if most is not None:
            if taken > most:
                msg = f"the record contains more than {_MOST_STEPS:,} values"
                raise TooLongError(msg)
            if (most - taken) % PIECE_STEPS == 0:
                yield
        if at > len(data):
            msg = f"the value at byte {start} is truncated: it needs more than the {len(data) - start} bytes there are"
            raise FramingError(msg)
    if steps is not None:
        steps.left -= taken
    return at


def array_at(data: memoryview, start: int) -> tuple[int, int]:
    """Offset of the first element and number of elements of the array at `start`. Raises FramingError if it is not an array."""
    code = data[start] if start < len(data) else None
    if code is None or not (0x90 <= code <= 0x9F or code in (0xDC, 0xDD)):
        msg = f"expected a MessagePack array at byte {start}, got {'the end' if code is None else f'0x{code:02x}'}"
        raise FramingError(msg)
    at, count = _step(data, start)
    if at > len(data):
        msg = (
            f"the head of the array at byte {start} is truncated: it needs {at - start} bytes, got {len(data) - start}"
        )
        raise FramingError(msg)
    return at, count


def entries(data: memoryview) -> Iterator[tuple[memoryview, memoryview]]:
    """The keys and values of the map that `data` contains, up to the first that is truncated. Nothing if it is no map."""
    code = data[0] if data else 0
    if not (0x80 <= code <= 0x8F or code in (0xDE, 0xDF)):
        return
    at, values = _step(data, 0)
    steps = _Steps()
    with suppress(FramingError):
        for _ in range(values // 2):
            middle = end_of(data, at, steps)
            end = end_of(data, middle, steps)
            yield data[at:middle], data[middle:end]
            at = end


class Parts(NamedTuple):
    """The readable parts of an array `[first, [item, item, …], …]`."""

    first: memoryview
    items: list[memoryview]
    rest: memoryview
    """The bytes that belong to no part."""
    problem: str | None
    """Why `rest` is unreadable; None if it is empty."""


def split(data: memoryview, start: int, most: int) -> Generator[None, None, Parts]:
    """Split the array at `start`; yields about once in a millisecond. Raises FramingError if it does not start with `[first, [`.

    Raises TooLongError if it has more than `most` items, or more values than can be walked through in a moment.
    """
    steps = _Steps()
    at, parts = array_at(data, start)
    if parts < 2:
        msg = f"expected an array of at least 2 elements at byte {start}, got {parts}"
        raise FramingError(msg)
    first_end = yield from _walk(data, at, steps)
    first = data[at:first_end]
    at, count = array_at(data, first_end)
    items: list[memoryview] = []
    try:
        for _ in range(count):
            end = yield from _walk(data, at, steps)
            if len(items) == most:
                msg = f"the record has more than {most:,} items"
                raise TooLongError(msg)
            items.append(data[at:end])
            at = end
        for _ in range(parts - 2):
            at = yield from _walk(data, at, steps)
    except TooLongError:
        raise
    except FramingError as error:
        return Parts(first, items, data[at:], str(error))
    rest = data[at:]
    return Parts(first, items, rest, f"{len(rest)} bytes after the end of the array" if rest else None)


def _step(data: memoryview, at: int) -> tuple[int, int]:
    """The offset after one value, or after the header of an array or map, and the number of values in it."""
    if at >= len(data):
        return len(data) + 1, 0
    code = data[at]
    if code <= 0x7F or code >= 0xE0:
        return at + 1, 0
    if code <= 0x9F:
        return at + 1, (code & 0x0F) * (2 if code <= 0x8F else 1)
    if code <= 0xBF:
        return at + 1 + (code & 0x1F), 0
    if code in _FIXED:
        return at + _FIXED[code], 0
    if code in _SIZED:
        width, more = _SIZED[code]
        return at + 1 + width + more + int.from_bytes(data[at + 1 : at + 1 + width], "big"), 0
    if code in _COUNTED:
        width, each = _COUNTED[code]
        return at + 1 + width, each * int.from_bytes(data[at + 1 : at + 1 + width], "big")
    msg = f"0x{code:02x} at byte {at} begins no MessagePack value"
    raise FramingError(msg)

"""Reads and writes the three trace headers in mappings, ASGI headers (pairs of bytes) and Kafka headers (text and bytes).

Names match in any case, and values may be text or bytes. A header that cannot be read is ignored. Only a carrier that is no
collection of headers raises.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from itertools import islice
from typing import Any, Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"

_NAMES: Final = frozenset({TRACEPARENT, TRACESTATE, BAGGAGE})
_MAX_HEADER: Final = 16_384
_MAX_PAIRS: Final = 10_000


def read_headers(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """The three headers as text, by lower-case name. Headers of one name are joined; several `traceparent` count as none.

    Raises:
        TypeError: the carrier is neither a mapping nor a collection of pairs. ValueError: an element of it is no pair.
    """
    items = getattr(carrier, "multi_items", None) or getattr(carrier, "items", None)  # httpx names it so
    pairs: Iterable[Any] = items() if callable(items) else carrier
    found: dict[str, list[str]] = {}
    for key, value in islice(pairs, _MAX_PAIRS):
        name = (_text(key) or "").lower()
        if name in _NAMES:
            parts = value if isinstance(value, list | tuple) else (value,)
            found.setdefault(name, []).extend(text for part in parts if (text := _text(part)) is not None)
    if len(found.get(TRACEPARENT, ())) > 1:
        del found[TRACEPARENT]
    return {name: ",".join(parts)[:_MAX_HEADER] for name, parts in found.items()}


def write_mapping(carrier: MutableMapping[str, str], written: Mapping[str, str]) -> None:
    """Set headers in a mapping, and remove entries with the same name in another case."""
    for key in [key for key in carrier if key not in written and (_text(key) or "").lower() in written]:
        del carrier[key]
    for name, value in written.items():
        carrier[name] = value


def write_asgi(headers: list[tuple[bytes, bytes]], written: Mapping[str, str]) -> None:
    """Set headers in an ASGI list: pairs of bytes, names in lower case."""
    headers[:] = [pair for pair in headers if (_text(pair[0]) or "").lower() not in written]
    headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in written.items()]


def write_kafka(headers: list[tuple[str, bytes]], written: Mapping[str, str]) -> None:
    """Set headers in a list of Kafka clients: pairs of text and bytes."""
    headers[:] = [pair for pair in headers if (_text(pair[0]) or "").lower() not in written]
    headers += [(name, value.encode()) for name, value in written.items()]


def _text(value: object) -> str | None:
    if isinstance(value, bytes | bytearray):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None

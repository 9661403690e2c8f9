"""Which texts of a span a store indexes for full-text search. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from prela_stream.model.span import SpanData

SPAN_CHARS: Final = 16_384
"""The most text of one span that is indexed."""
TRACE_CHARS: Final = 1 << 20
"""The most text of one trace that is indexed."""
SEPARATOR: Final = "\x1f"
"""Separates the texts of a document; it is in no text."""

_MAX_DEPTH: Final = 16


def texts_of(span: SpanData) -> list[str]:
    """The texts that find a span: its name, its message, and every string in its attributes and events."""
    found = [span.name]
    if span.status_message:
        found.append(span.status_message)
    _collect(span.attributes.values(), found, 0)
    for event in span.events:
        found.append(event.name)
        _collect(event.attributes.values(), found, 0)
    return _cut(found)


def _collect(values: Iterable[Any], found: list[str], depth: int) -> None:
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list | dict) and depth < _MAX_DEPTH:
            _collect(value if isinstance(value, list) else value.values(), found, depth + 1)


def _cut(texts: list[str]) -> list[str]:
    if sum(map(len, texts)) <= SPAN_CHARS:
        return texts
    left = SPAN_CHARS
    kept: list[str] = []
    for text in texts:
        kept.append(text if len(text) <= left else text[:left])
        left -= len(text)
        if left <= 0:
            break
    return kept


def join_texts(texts: Iterable[str], before: str = "") -> str:
    """The document `before`, extended by the texts that are not in it; at most TRACE_CHARS long."""
    known = dict.fromkeys(before.split(SEPARATOR)) if before else {}
    known.update(dict.fromkeys(text.replace("\0", " ").replace(SEPARATOR, " ") for text in texts))
    return SEPARATOR.join(known)[:TRACE_CHARS]

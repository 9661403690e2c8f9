"""Full-text search over traces: which words of a span are indexed, and how a person's words become a safe query. Pure."""

from collections.abc import Iterable
from typing import Any, Final

from prela_stream.model.span import SpanData

SPAN_CHARS: Final = 16_384
"""Text that is indexed of one span at most."""
TRACE_CHARS: Final = 1 << 20
"""Text that is indexed of one trace at most."""
SEPARATOR: Final = "\x1f"
"""Stands between the texts of one trace's document, and in no text."""

_MAX_DEPTH: Final = 16
_BLANK: Final = dict.fromkeys((*range(32), 127), " ")


def texts_of(span: SpanData) -> list[str]:
    """The texts by which a span is found: its name and message, and every string in its attributes and events."""
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
    left = SPAN_CHARS
    kept: list[str] = []
    for text in texts:
        kept.append(text if len(text) <= left else text[:left])
        left -= len(text)
        if left <= 0:
            break
    return kept


def join_texts(texts: Iterable[str], before: str = "") -> str:
    """One document of `before` and those of `texts` that it does not hold yet, at most TRACE_CHARS long."""
    known = dict.fromkeys(before.split(SEPARATOR)) if before else {}
    known.update(dict.fromkeys(text.replace("\0", " ").replace(SEPARATOR, " ") for text in texts))
    return SEPARATOR.join(known)[:TRACE_CHARS]


def match_query(words: str) -> str | None:
    """The FTS5 query for documents that hold all of these words, whatever characters they are made of.

    Words are parted by blanks; a word that ends in `*` matches every word that begins so. None if there is nothing to look for.
    """
    clean = words[:SPAN_CHARS].encode("utf-8", "replace").decode().translate(_BLANK)
    terms = [_term(word) for word in clean.split() if any(character.isalnum() for character in word)]
    return " AND ".join(terms) or None


def _term(word: str) -> str:
    prefix = word.endswith("*")
    quoted = '"' + word.rstrip("*").replace('"', '""') + '"'
    return quoted + "*" if prefix else quoted

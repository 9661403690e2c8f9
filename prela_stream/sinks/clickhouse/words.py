"""Texts as words of a text index, and the words of a user as conditions. Pure."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from prela_stream.sinks.texts import SPAN_CHARS, TRACE_CHARS

_WORD: Final = re.compile(r"[^\W_]+")


def words_of(texts: Iterable[str]) -> str:
    """The words of texts, each once, in small letters and without diacritics, separated by blanks."""
    found = dict.fromkeys(word for text in texts for word in _WORD.findall(_folded(text)))
    return " ".join(found)[:TRACE_CHARS]


def wanted_words(text: str) -> list[tuple[str, bool]]:
    """The words of a query, and whether each is the beginning of a word."""
    found: list[tuple[str, bool]] = []
    for part in text[:SPAN_CHARS].encode("utf-8", "replace").decode().split():
        words = _WORD.findall(_folded(part))
        found += [(word, part.endswith("*") and at == len(words) - 1) for at, word in enumerate(words)]
    return found


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text)
    return "".join(character for character in plain if not unicodedata.combining(character)).casefold()

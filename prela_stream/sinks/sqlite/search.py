"""How the words of a user become safe full-text queries. Pure."""

from typing import Final

from prela_stream.sinks.texts import SPAN_CHARS

_BLANK: Final = dict.fromkeys((*range(32), 127), " ")


def match_terms(words: str) -> list[str]:
    """The FTS5 terms of a text that a user wrote, of any characters. Each must occur in a trace.

    Blanks separate the words; a word that ends in `*` matches every word with this beginning. Empty if there is no word.
    """
    clean = words[:SPAN_CHARS].encode("utf-8", "replace").decode().translate(_BLANK)
    return [_term(word) for word in clean.split() if any(character.isalnum() for character in word)]


def _term(word: str) -> str:
    prefix = word.endswith("*")
    quoted = '"' + word.rstrip("*").replace('"', '""') + '"'
    return quoted + "*" if prefix else quoted
